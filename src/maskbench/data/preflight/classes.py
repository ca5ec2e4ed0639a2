"""Categories and classes: their names, whether splits agree on them, and whether there is something to learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Finding
from maskbench.data.preflight.records import Part
from maskbench.errors import few

RARE = 100
"""Times that a class may be rarer than the most frequent one."""


def named(part: Part) -> Iterator[Finding]:
    """What is odd about the categories of one file."""
    ids, names = list(part.categories), Counter(part.categories.values())
    for category_id, name in part.categories.items():
        if names[name] > 1:
            twice = [other for other, same in part.categories.items() if same == name]
            yield kinds.CATEGORY_TWICE.at(part.file, f"category {category_id}", f"`{name}` is the name of {few(twice)}")
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    for spellings in alike.values():
        if len(spellings) > 1:
            yield kinds.CATEGORY_ALIKE.at(part.file, "", f"has {', '.join(f'`{name}`' for name in spellings)}")
    if ids and ids[-1] - ids[0] + 1 > len(ids):
        yield kinds.CATEGORY_GAPS.at(part.file, "", f"{len(ids)} ids lie between {ids[0]} and {ids[-1]}")


def agreeing(train: Part, other: Part) -> Iterator[Finding]:
    """Where the categories of another split differ from those that are learnt."""
    for category_id, name in other.categories.items():
        label, learnt = f"category {category_id}", train.categories.get(category_id)
        if learnt is None:
            yield kinds.CATEGORY_NEW.at(other.file, label, f"`{name}` is not in {train.file}")
        elif learnt != name:
            yield kinds.CATEGORY_RENAMED.at(other.file, label, f"is `{name}`, but `{learnt}` in {train.file}")
    for category_id, name in train.categories.items():
        if category_id not in other.categories:
            yield kinds.CATEGORY_LACKING.at(other.file, f"category {category_id}", f"`{name}` is not listed")


def learnable(parts: Mapping[str, Part], counts: Mapping[str, Counter[int]]) -> Iterator[Finding]:
    """Classes that can't be learnt or measured.

    Args:
        parts: by split.
        counts: objects by split and category.
    """
    train = parts["train"]
    most = max(counts["train"].values(), default=0)
    for category_id, name in train.categories.items():
        trained, tested = counts["train"][category_id], counts["test"][category_id]
        label = f"category {category_id}"
        if not any(own[category_id] for own in counts.values()):
            yield kinds.CLASS_UNUSED.at(train.file, label, f"no object is a `{name}`")
        elif not trained and tested:
            yield kinds.CLASS_UNTRAINED.at(train.file, label, f"no `{name}` to train on, {tested} in the test split")
        elif trained and not tested:
            yield kinds.CLASS_UNTESTED.at(parts["test"].file, label, f"no `{name}`, but {trained} to train on")
        if trained and trained * RARE < most:
            yield kinds.CLASS_RARE.at(train.file, label, f"{trained} × `{name}`, of the most frequent class {most}")
