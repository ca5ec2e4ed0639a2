"""What engines run, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskbench.atomic import replace_text
from maskbench.errors import Again

End = Literal["done", "kept", "failed"]

ANNOUNCED = "trials.json"
"""The file of a study that names the trials which sweeps were to make, begun or not."""


@dataclass(frozen=True)
class Trial:
    """A run to be made.

    Args:
        name: of the trial, another one for each of a sweep.
        command: what runs it.
        folder: what it writes.
        gpus: how many it takes where there are some, or a part of one.
    """

    name: str
    command: Sequence[str]
    folder: Path
    gpus: float = 0

    @property
    def log(self) -> Path:
        """Its output, all attempts one after another."""
        return self.folder.parent / "logs" / f"{self.folder.name}.log"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: done now, kept from before, or failed with a reason; the seconds that it took.

    Args:
        trial: which.
        state: done, kept or failed.
        seconds: of this attempt.
        reason: why it failed.
        again: whether another attempt may go well.
        interrupted: whether it failed since somebody asked for an end.
    """

    trial: Trial
    state: End
    seconds: float = 0.0
    reason: str | None = None
    again: Again = "maybe"
    interrupted: bool = False


@dataclass(frozen=True)
class Started:
    """A trial has begun, at a place that the engine names: a GPU, a machine."""

    trial: Trial
    place: str = ""


def announce(trials: Iterable[Trial]) -> None:
    """Write down in their studies which trials there are to be, beside those of earlier sweeps."""
    studies: dict[Path, list[str]] = {}
    for trial in trials:
        studies.setdefault(trial.folder.parent, []).append(trial.folder.name)
    for study, names in studies.items():
        before = announced(study)
        if new := sorted({*before, *names} - set(before)):
            replace_text(study / ANNOUNCED, json.dumps([*before, *new], indent=2) + "\n")


def announced(study: Path) -> list[str]:
    """Folder names of the trials that sweeps of this study were to make; none where it is not known."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((study / ANNOUNCED).read_text(encoding="utf-8"))
        return [name for name in found if isinstance(name, str) and "/" not in name] if isinstance(found, list) else []
    return []
