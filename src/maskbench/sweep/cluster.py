"""What engines on many machines share: a file system, and so the files of the trials, are all that they see of them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from maskbench.errors import ConfigError, RunError
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Outcome, Started, Trial

EVERY = 2.0
"""Seconds between two looks at the files of a shared file system; longer where they are many."""

PASSED_ON = re.compile(r"PYTHONPATH|(MASKBENCH|WANDB|HF|TORCH|PYTORCH|CUBLAS|NCCL)_\w+")
"""Variables that a trial on another machine needs as this process has them."""


def installed(module: str, launcher: str) -> Any:
    """The module that an engine is made of, or `ConfigError` with what to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(f"hydra/launcher={launcher} needs {module}: pip install 'maskbench[{launcher}]'") from error


def passed_on() -> dict[str, str]:
    """What of this process's environment goes to trials that do not inherit it."""
    return {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}


def lost(trial: Trial, owner: str, reason: str, *, interrupted: bool = False) -> Outcome:
    """The outcome of an attempt that ended without a word: written down for it, so that nobody waits for it."""
    with suppress(RunError, OSError):
        if Status.finished(trial.folder):
            return Outcome(trial, "done")
        status = Status.read(trial.folder)
        if status and status.state == "running" and status.owner == owner:
            status.failed(reason).write(trial.folder)
    return Outcome(trial, "failed", reason=reason, interrupted=interrupted)


class Gate:
    """Opens now and then, so that a shared file system is not asked all the time."""

    def __init__(self) -> None:
        self._opened = 0.0

    def opens(self, files: int) -> bool:
        """Whether it is time to look at so many files: each second at a hundred of them at the most."""
        if time.monotonic() - self._opened < max(EVERY, files / 100):
            return False
        self._opened = time.monotonic()
        return True


class Arrivals:
    """Which of the trials that wait somewhere have begun, as their status tells.

    Args:
        own: whether an attempt is one of this engine's, by its owner's name.
    """

    def __init__(self, own: Callable[[Trial, str], bool]) -> None:
        self._own = own
        self._expected: dict[str, tuple[Trial, int]] = {}
        """With the number of attempts before."""
        self._gate = Gate()

    def expect(self, trial: Trial) -> None:
        status = known(trial)
        self._expected[trial.name] = (trial, status.attempts if status else 0)

    def forget(self, trial: Trial) -> None:
        self._expected.pop(trial.name, None)

    def awaits(self, trial: Trial) -> bool:
        """Whether it has not begun, as far as is known."""
        return trial.name in self._expected

    def look(self) -> Iterator[Started]:
        if not self._expected or not self._gate.opens(len(self._expected)):
            return
        for trial, before in list(self._expected.values()):
            status = known(trial)
            if status and status.attempts > before and status.owner and self._own(trial, status.owner):
                self.forget(trial)
                yield Started(trial, status.host or "")


def known(trial: Trial) -> Status | None:
    """Its status; None where there is none, or none that can be read: its own process is going to tell of that."""
    with suppress(RunError):
        return Status.read(trial.folder)
    return None
