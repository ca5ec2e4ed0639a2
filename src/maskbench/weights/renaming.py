"""Names of one code base → ours, by rules that a table holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression for whole parts of a name, from its beginning, and what replaces them."""

Rules = Sequence[Rule]


def rename(name: str, rules: Rules) -> str | None:
    """`name` by the first rule that matches it up to a dot or its end; None when none does."""
    for pattern, replacement in rules:
        if found := re.match(rf"(?:{pattern})(?=\.|$)", name):
            new = found.expand(replacement) if isinstance(replacement, str) else replacement(found)
            return new + name[found.end() :]
    return None


def rename_all(names: Iterable[str], rules: Rules) -> tuple[dict[str, str], list[str]]:
    """Ours → theirs, and those that no rule matches or that another name has taken."""
    ours: dict[str, str] = {}
    unmatched = []
    for name in names:
        new = rename(name, rules)
        if new is None or new in ours:
            unmatched.append(name)
        else:
            ours[new] = name
    return ours, unmatched
