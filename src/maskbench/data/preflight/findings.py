"""The nouns of a preflight: a kind of finding, one finding, and all of a survey by their kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

Severity = Literal["error", "warning", "note"]
"""Error: training or its numbers would be wrong, or it would stop. Warning: look at it. Note: good to know."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

EXAMPLES = 12
"""Findings of a kind that are kept one by one; the others are counted."""

LONG = 240
"""Characters of what was found that are kept: a broken file may hold anything."""


@dataclass(frozen=True)
class Sight:
    """What a finding can be seen on: a photo with annotations as they stand in the file, or photos that are alike."""

    photos: tuple[Path, ...]
    annotations: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Kind:
    """What can be wrong with a data set; `maskbench.data.preflight.kinds` lists all of them.

    Args:
        name: a word for programs.
        severity: how bad it is.
        title: the same for people, of many at once.
        remedy: what to do.
    """

    name: str
    severity: Severity
    title: str
    remedy: str

    def at(self, file: str, record: str, found: str, sight: Sight | None = None) -> Finding:
        """One of this kind: in which file, at which record of it (none: empty), and what stands there."""
        return Finding(self, _printable(file), _printable(record), _printable(found), sight)


def _printable(text: str) -> str:
    """A text of a file that may hold anything, as it can be written: not too long, and in Unicode."""
    cut = text if len(text) <= LONG else f"{text[:LONG]} …"
    return cut.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong at one place; `file` is relative to the data set's root."""

    kind: Kind
    file: str
    record: str
    found: str
    sight: Sight | None = None

    def __str__(self) -> str:
        where = f"{self.file} ({self.record})" if self.record else self.file
        return f"{where}: {self.found}"


@dataclass
class Group:
    """All findings of a kind: how many there are, and the first of them."""

    kind: Kind
    count: int = 0
    examples: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        examples = [{"file": each.file, "id": each.record, "found": each.found} for each in self.examples]
        kind = self.kind
        return {
            "kind": kind.name,
            "severity": kind.severity,
            "title": kind.title,
            "remedy": kind.remedy,
            "count": self.count,
            "examples": examples,
        }


class Findings:
    """What was found so far, by kind; memory does not grow with how much is wrong."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def add(self, finding: Finding) -> None:
        group = self._groups.setdefault(finding.kind.name, Group(finding.kind))
        group.count += 1
        if len(group.examples) < EXAMPLES:
            group.examples.append(finding)

    def extend(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    def groups(self) -> list[Group]:
        """The worst first, and of one severity those of which there are most."""
        rank = {severity: place for place, severity in enumerate(SEVERITIES)}
        return sorted(self._groups.values(), key=lambda group: (rank[group.kind.severity], -group.count))
