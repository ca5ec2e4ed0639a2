"""Which phase of a prediction is running, for whoever times it.

What brings features about, runs a head on regions or draws masks says so where it stands:

    @phase("masks")
    def paste(...): ...

Where nobody listens that costs a look at a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Literal, ParamSpec, TypeVar, get_args

import torch

Phase = Literal["prepare", "backbone", "network", "heads", "selection", "masks"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""In the order of a prediction; `network` stands for the backbone and what else is compiled or recorded with it."""

P = ParamSpec("P")
R = TypeVar("R")
Listener = Callable[[Phase], AbstractContextManager[None]]
"""Name of a phase → the context that it runs in; phases lie inside each other."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def phase(name: Phase) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that is a phase of its own, under this name."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def announced(*args: P.args, **kwargs: P.kwargs) -> R:
            listener = None if torch.compiler.is_compiling() else _listener.get()
            if listener is None:
                return function(*args, **kwargs)
            with listener(name):
                return function(*args, **kwargs)

        return announced

    return decorate


@contextmanager
def heard(listener: Listener | None) -> Iterator[None]:
    """Phases that begin inside are told to `listener`; None: to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
