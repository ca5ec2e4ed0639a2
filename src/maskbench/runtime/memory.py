"""What a run does when memory runs out: it says so with the amount, and may go on with smaller parts of a batch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import torch

from maskbench.atomic import replace_text
from maskbench.errors import OutOfMemoryError
from maskbench.runtime.checkpoints import forget_within, newest
from maskbench.runtime.ranks import leads
from maskbench.runtime.run_folder import RunFolder, read_json, write_json

Choice = Literal["fail", "halve"]
"""What the setting `out_of_memory` may say."""

NOTE = ".out_of_memory"
"""The file in which a process of a run leaves that it ran out of memory."""

ASKED = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")
"""What torch says of the amount, on a GPU as on a CPU."""


@dataclass(frozen=True)
class Parts:
    """In how many parts a device goes through its share of a batch, one after another, adding up their gradients.

    Args:
        count: of the parts.
        since_epoch: how many epochs were trained in fewer parts before.
    """

    count: int = 1
    since_epoch: int = 0

    @classmethod
    def of(cls, run: RunFolder) -> Parts:
        """As the attempts before left it."""
        return cls(**read_json(run.memory)) if run.memory.exists() else cls()


@contextmanager
def told(run: RunFolder, choice: Choice, images: int, parts: Parts) -> Iterator[None]:
    """Give memory that runs out a name and a number; halve the parts of the next attempt if that is the choice.

    Where several devices train, the first tells what has happened to any of them: it sees a connection that ends, and
    the other has left a note.

    Args:
        run: the run's folder.
        choice: one of `Choice`.
        images: that a device trains on at once.
        parts: of this attempt.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    note = run.path / NOTE
    if leads():
        note.unlink(missing_ok=True)
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError, and so is a CPU's
        if ran_out(error):
            replace_text(note, f"{_amount(error)}; {_next(run, choice, images, parts)}")
        elif not note.exists():
            raise
        told = OutOfMemoryError(note.read_text(encoding="utf-8"))
        told.again = "yes" if Parts.of(run) != parts else "maybe"
        raise told from error


def ran_out(error: BaseException) -> bool:
    """Whether it says that memory ran out, on a GPU or on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _amount(error: BaseException) -> str:
    asked = ASKED.search(str(error))
    return f"memory ran out when {asked[1]} more were asked for" if asked else f"memory ran out ({error})"


def _next(run: RunFolder, choice: Choice, images: int, parts: Parts) -> str:
    trained = f"a device trained on {images} image{'s' if images > 1 else ''} at once"
    advice = "lower data.batch or the size of images"
    if choice == "fail":
        return f"{trained}: {advice}, or set out_of_memory=halve"
    if images % 2:
        return f"{trained}, which can't be halved: {advice}"
    # by whichever process it happened to: where several train, it may be any of them
    forget_within(run.checkpoints)  # whose batches are not those of the next attempt
    found = newest(run.checkpoints)
    write_json(run.memory, asdict(Parts(2 * parts.count, found.epochs if found else 0)))
    return f"{trained}, and on {images // 2} in the next attempt (out_of_memory=halve)"
