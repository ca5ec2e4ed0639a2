"""Ctrl-C while Lightning is at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible() -> Iterator[None]:
    """Lightning makes of Ctrl-C a `SystemExit`, which looks like a failure; here it stays a `KeyboardInterrupt`.

    Its trainer's status does not tell: it is `INTERRUPTED` after whatever ended it.
    """
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
