"""Lengths and counts of bottom-up and hybrid methods, in pixels of the network input or in cells of their map.

N objects
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

NEAR = 0.05
"""Share of the objects whose nearest neighbour may lie nearer than what a method tells apart."""


def near(apart: Float[np.ndarray, " N"]) -> float:
    """The distance that all but a few objects keep from their nearest neighbour; infinite where each is alone."""
    return float(np.quantile(apart, NEAR)) if len(apart) else float("inf")


def fit_reach(near: float, stride: int, most: int) -> int:
    """Cells around a peak in which no other can be: fewer than two objects lie apart, one at least."""
    return int(np.clip(np.ceil(near / stride) - 1, 1, most)) if np.isfinite(near) else most


def fit_bump(near: float, stride: int, most: float) -> float:
    """σ of a centre's bump in pixels: the half of how near two lie, so that a dip is left between them, and a cell."""
    return float(np.clip(round(near / 2, 1), stride, most)) if np.isfinite(near) else most


def fit_smallest(areas: Float[np.ndarray, " N"], stride: int) -> int:
    """Cells that an instance must have: half of what the smallest hundredth of the objects has; a speck has one."""
    return int(np.clip(np.floor(float(np.quantile(areas, 0.01)) / stride**2 / 2), 2, 16))


def fit_steps(sides: Float[np.ndarray, "N 2"], stride: int) -> int:
    """Cells that the way to an object's middle is long, for all but the largest hundredth: half of width and height."""
    longest = float(np.quantile(sides.sum(axis=1) / 2, 0.99)) / stride
    return int(np.clip(10 * np.ceil(longest / 10), 20, 400))


def fit_farthest(median: float, strides: Sequence[int]) -> list[list[float]]:
    """Pixels from a location to the farthest side of its box, by level (FCOS): doubling, the last without an end.

    With COCO's median of 86 at a short side of 800 the first range ends at 64, as in the paper.
    """
    first = max(3 * strides[0], 4 * round(0.75 * median / 4))
    ends = [float(first * 2**level) for level in range(len(strides) - 1)]
    return [[low, high] for low, high in zip([0.0, *ends], [*ends, 1e8], strict=True)]
