"""What engines on many machines share: a file system, and so the files of the trials, are all that they see of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator

from maskbench.errors import RunError
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Started, Trial

EVERY = 2.0
"""Seconds between two looks at the files of trials that have not begun."""

PASSED_ON = re.compile(r"(MASKBENCH|WANDB|HF|TORCH|PYTORCH|CUBLAS|NCCL)_\w+")
"""Variables that a trial on another machine needs as this process has them."""


def passed_on() -> dict[str, str]:
    """What of this process's environment goes to trials that do not inherit it."""
    return {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}


class Arrivals:
    """Which of the trials that wait somewhere have begun, as their status tells.

    Args:
        own: whether an attempt is one of this engine's, by its owner's name.
    """

    def __init__(self, own: Callable[[Trial, str], bool]) -> None:
        self._own = own
        self._expected: dict[str, Trial] = {}
        self._looked = 0.0

    def expect(self, trial: Trial) -> None:
        self._expected[trial.name] = trial

    def forget(self, trial: Trial) -> None:
        self._expected.pop(trial.name, None)

    def awaits(self, trial: Trial) -> bool:
        """Whether it has not begun, as far as is known."""
        return trial.name in self._expected

    def look(self) -> Iterator[Started]:
        if time.monotonic() - self._looked < EVERY:
            return
        self._looked = time.monotonic()
        for trial in list(self._expected.values()):
            try:
                status = Status.read(trial.folder)
            except RunError:  # its own process is going to tell of it
                continue
            if status and status.owner and self._own(trial, status.owner):
                self.forget(trial)
                yield Started(trial, status.host or "")
