"""NumPy's arrays as pickles hold them, read as what they say: bytes of a kind and a shape.

NumPy's own way back sets flags and sizes as the file has them: a damaged one takes all memory, or ends the process.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

CODE = re.compile(r"[fiu][1248]|b1|c8|c16")
ORDERS = ("<", ">", "=", "|")


class DType:
    """What `numpy.dtype(code)` stands for in a pickle; `found` is the dtype."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise ValueError(f"an array of {code!r:.40}, expected numbers")
        self.found = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Of what NumPy keeps, the order of bytes."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ORDERS:
            raise ValueError(f"a dtype in the state {state!r:.40}")
        self.found = self.found.newbyteorder(order)


class Array:
    """What `numpy.ndarray` stands for in a pickle; `found` is the array."""

    found: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, columns, content = state
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(dtype, DType) or not isinstance(content, bytes | bytearray):
            raise ValueError("an array without a dtype or bytes")
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"an array of shape {shape!r:.60}")
        if math.prod(shape) * dtype.found.itemsize != len(content):
            raise ValueError(f"an array of {len(content)} bytes, which are not {shape} of {dtype.found}")
        self.found = np.frombuffer(content, dtype.found).reshape(shape, order="F" if columns else "C")


def begin(*_: Any) -> Array:
    """In the place of `numpy.core.multiarray._reconstruct`: an array whose state is to come."""
    return Array()


def scalar(dtype: Any, content: Any = None) -> Any:
    """In the place of `numpy.core.multiarray.scalar`."""
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(dtype, DType) or not isinstance(content, bytes) or len(content) != dtype.found.itemsize:
        raise ValueError("a number without a dtype or bytes")
    return np.frombuffer(content, dtype.found)[0]
