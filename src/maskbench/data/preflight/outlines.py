"""The geometry of polygons: what they enclose, and whether they cross themselves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

Points = Float64[np.ndarray, "_points 2"]
"""x and y in pixels, in the order of drawing; the last is joined to the first."""

MOST_PAIRS = 2**18
"""Pairs of edges that are looked at; of an outline that has more, nobody says whether it crosses itself."""


def enclosed(points: Points) -> float:
    """The area that a polygon winds around, in square pixels (shoelace formula; without a sign).

    Loops that turn the other way count negative, and what is enclosed twice counts twice.
    """
    near = points - points[0]  # far from the origin digits would be lost
    (x, y), (u, v) = near.T, _shifted(near).T
    return abs(float(x @ v - y @ u)) / 2


def crosses(points: Points) -> bool:
    """Whether two of its edges cross at a point inside of both; edges that touch don't."""
    starts = _corners(points)
    if len(starts) < 4:
        return False
    ends = _shifted(starts)
    first, second = _candidates(starts, ends)
    a, b, c, d = starts[first], ends[first], starts[second], ends[second]
    apart = (_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)
    return bool(apart.any())


def length(points: Points) -> float:
    """Of the outline, in pixels."""
    return float(np.linalg.norm(_shifted(points) - points, axis=1).sum())


def _corners(points: Points) -> Points:
    """Without the points between two others of a line, of which traced outlines have many."""
    before, after = np.concatenate((points[-1:], points[:-1])), _shifted(points)
    return points[_side(before, after, points) != 0]


def _shifted(points: Points) -> Points:
    """The point after each one."""
    return np.concatenate((points[1:], points[:1]))


def _candidates(starts: Points, ends: Points) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """Pairs of edges whose extents along x overlap; none where there are too many."""
    low, high = np.minimum(starts[:, 0], ends[:, 0]), np.maximum(starts[:, 0], ends[:, 0])
    order = np.argsort(low, kind="stable")
    # of the edges in that order, those from the next one up to the last that begins before this one ends
    counts = np.maximum(np.searchsorted(low[order], high[order], side="right") - np.arange(len(order)) - 1, 0)
    if counts.sum() > MOST_PAIRS:
        counts[:] = 0
    first = np.repeat(np.arange(len(order)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first], order[first + 1 + within]


def _side(start: Points, end: Points, point: Points) -> Float64[np.ndarray, " pairs"]:
    """Sign tells on which side of the line from start to end a point lies; 0: on it."""
    edge, away = end - start, point - start
    return edge[:, 0] * away[:, 1] - edge[:, 1] * away[:, 0]
