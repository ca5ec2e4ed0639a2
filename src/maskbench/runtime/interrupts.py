"""Ctrl-C while Lightning is at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Lightning makes of Ctrl-C a `SystemExit`, which looks like a failure; here it stays a `KeyboardInterrupt`."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
