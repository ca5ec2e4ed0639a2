"""The package's own errors: each says what was found, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

Again = Literal["no", "maybe", "yes"]
"""Whether another attempt may go well: never, if it was bad luck, or since something is other than it was."""


def few(named: Collection[Any]) -> str:
    """The first of many, as a message has them, and their number."""
    first = ", ".join(str(each) for each in [*named][:8])
    return f"{first}, … ({len(named)} in all)" if len(named) > 8 else first


class MaskbenchError(Exception):
    """Base of every error that is the user's to mend; a verb prints it without a traceback."""

    again: Again = "no"


class DataError(MaskbenchError):
    """An annotation file, a record in it or an image can't be used as it is."""


class ConfigError(MaskbenchError, ValueError):
    """Settings that contradict each other or name something that does not exist."""


class RunError(MaskbenchError):
    """A run folder lacks what a verb needs, or holds something unreadable."""


class WeightsError(MaskbenchError):
    """Pretrained weights or a checkpoint can't be fetched, read or fitted into the network."""


class ExportError(MaskbenchError):
    """A network can't be exported, or a file that was written of one computes something else."""


class DivergedError(MaskbenchError):
    """Training came to a loss that is no finite number."""


class TakenError(RunError):
    """Another process is at a run: it may end."""

    again: Again = "maybe"


class OutOfMemoryError(MaskbenchError):
    """Memory ran out; what is asked for may fit another time, on a device that nobody shares or in smaller parts."""

    again: Again = "maybe"


class StorageError(MaskbenchError, OSError):
    """A file can't be written: the disk is full, or closed to us; there may be room another time."""

    again: Again = "maybe"


class DashboardError(MaskbenchError):
    """W&B can't be reached, knows nobody by this login, or did not take a dashboard."""
