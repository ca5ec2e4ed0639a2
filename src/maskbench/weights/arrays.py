"""NumPy's arrays as pickles hold them, read as what they say: bytes of a kind and a shape.

NumPy's own way back sets flags and sizes as the file has them: a damaged one takes all memory, or ends the process.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

KIND = re.compile(r"[fiu][1248]|b1|c8|c16")
ORDERS = ("<", ">", "=", "|")


class Kind:
    """What `numpy.dtype(code)` stands for in a pickle."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not KIND.fullmatch(code):
            raise ValueError(f"an array of {code!r:.40}, expected numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Of what NumPy keeps, the order of bytes."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ORDERS:
            raise ValueError(f"a dtype in the state {state!r:.40}")
        self.dtype = self.dtype.newbyteorder(order)


class Array:
    """What `numpy.ndarray` stands for in a pickle; `found` is the array."""

    found: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, columns, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(kind, Kind) or not isinstance(content, bytes | bytearray):
            raise ValueError("an array without a dtype or bytes")
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"an array of shape {shape!r:.60}")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise ValueError(f"an array of {len(content)} bytes, which are not {shape} of {kind.dtype}")
        self.found = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if columns else "C")


def begin(*_: Any) -> Array:
    """In the place of `numpy.core.multiarray._reconstruct`: an array whose state is to come."""
    return Array()


def scalar(kind: Any, content: Any = None) -> Any:
    """In the place of `numpy.core.multiarray.scalar`."""
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(kind, Kind) or not isinstance(content, bytes) or len(content) != kind.dtype.itemsize:
        raise ValueError("a number without a dtype or bytes")
    return np.frombuffer(content, kind.dtype)[0]
