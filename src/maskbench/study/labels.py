"""What the rows of a study are called: by their method, and several of one method by what they differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from maskbench.study.runs import Key, Run

TARGET = "_target_"
"""The setting by which a part of a config says its class."""


def labels(runs: Sequence[Run]) -> list[str]:
    """What each run's row is called: its method, and where its table has several of them its settings and point.

    A table has one footing; what footings differ in stands in their headings.
    """
    tables: dict[str | None, list[int]] = {}
    for place, run in enumerate(runs):
        tables.setdefault(run.keys["footing"].key if "footing" in run.keys else None, []).append(place)
    named: dict[int, str] = {}
    for places in tables.values():
        named |= dict(zip(places, _of_one_table([runs[place] for place in places]), strict=True))
    return [named[place] for place in range(len(runs))]


def _of_one_table(runs: Sequence[Run]) -> list[str]:
    points = _apart(run.keys["operating_point"] for run in runs if "operating_point" in run.keys)
    settings = {
        method: _apart(run.keys["method"] for run in runs if run.method == method and "method" in run.keys)
        for method in {run.method for run in runs}
    }
    labels = []
    for run in runs:
        own = [(settings[run.method], "method"), (points, "operating_point")]
        texts = [text for found, kind in own if kind in run.keys for text in found[run.keys[kind].key]]
        labels.append(run.method + (f" ({', '.join(texts)})" if texts else ""))
    return labels


def differences(keys: Iterable[Key]) -> dict[str, dict[str, Any]]:
    """By key the fields in which not all are the same, with its own values, None where it has none."""
    fields = {key.key: key.fields for key in keys}
    names = sorted({name for own in fields.values() for name in own})
    apart = [name for name in names if len({str(own.get(name)) for own in fields.values()}) > 1]
    return {key: {name: own.get(name) for name in apart} for key, own in fields.items()}


def _apart(keys: Iterable[Key]) -> dict[str, list[str]]:
    """What sets each key apart from the others; nothing where there is one alone.

    Of a part that is of another class the class says it all, unless others of that class have other settings. Where two
    classes have one name, their keys begin the texts.
    """
    fields = {key.key: key.fields for key in keys}
    texts = {
        key: [_text(name, value) for name, value in sorted(own.items()) if _differs(name, own, fields.values())]
        for key, own in fields.items()
    }
    twice = Counter(map(tuple, texts.values()))
    return {key: [key[:4], *own] if twice[tuple(own)] > 1 else own for key, own in texts.items()}


def _differs(name: str, own: Mapping[str, Any], all_fields: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a setting is another where the parts that it lies in are the same."""
    above = accumulate(name.split(".")[:-1], "{}.{}".format)
    classes = {f"{part}.{TARGET}" for part in above} - {name}
    alike = [other for other in all_fields if all(str(other.get(part)) == str(own.get(part)) for part in classes)]
    return len({str(other.get(name)) for other in alike}) > 1


def _text(name: str, value: Any) -> str:
    *above, last = name.split(".")
    if last == TARGET and above:
        return f"{above[-1]} {str(value).rsplit('.', 1)[-1]}"
    return f"{last} {value}"
