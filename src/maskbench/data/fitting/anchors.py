"""Anchors by k-means on IoU, with centres that a region proposal network can have.

Redmon & Farhadi, "YOLO9000", CVPR 2017, arXiv 1612.08242, section 2: boxes are clustered by their shapes, and the
distance is 1 − IoU of two boxes with one centre, so that large boxes don't count more than small ones. An RPN has the
same scales (in strides) and aspect ratios at every cell of every level; these are the parameters here, and a centre is
what they make of a level.

N boxes   A anchors: levels × ratios × scales
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

STEPS = 30
"""Of Lloyd's algorithm at most."""
STARTS = 4
"""From which scales are looked for: an octave lies between two levels, and these divide it."""
WORTH = 0.05
"""Mean best IoU that a second scale must add: it costs every cell as many anchors more as there are ratios."""
SCALES = 2
"""That a cell may have at most."""
BOXES = 3000
"""Enough to tell; of more every so many are taken."""

Sides = Float[np.ndarray, "N 2"]


def shapes(strides: Sequence[float], scales: Sequence[float], ratios: Sequence[float]) -> Float[np.ndarray, "A 2"]:
    """Width and height of all anchors; the ratio is height over width (`nn.rpn`)."""
    root = np.sqrt(np.asarray(ratios, float))
    shape = np.stack([1 / root, root], axis=1)[None, :, None] * np.asarray(scales, float)[None, None, :, None]
    return (np.asarray(strides, float)[:, None, None, None] * shape).reshape(-1, 2)


def best_overlaps(
    sides: Sides, anchors: Float[np.ndarray, "A 2"]
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """The largest IoU that each box has with an anchor of the same centre, and which anchor that is."""
    shared = np.minimum(sides[:, None], anchors).prod(axis=2)
    overlap = shared / (sides.prod(axis=1)[:, None] + anchors.prod(axis=1) - shared)
    return overlap.max(axis=1), overlap.argmax(axis=1)


def mean_best(sides: Sides, strides: Sequence[float], scales: Sequence[float], ratios: Sequence[float]) -> float:
    """How well anchors fit: the mean over boxes of the best IoU."""
    return float(best_overlaps(sides, shapes(strides, scales, ratios))[0].mean())


def fit_ratios(sides: Sides, start: Sequence[float]) -> list[float]:
    """As many aspect ratios as there are, by k-means on the boxes at one size; never worse than `start` at that."""
    sides = _some(sides)
    unit = sides / np.sqrt(sides.prod(axis=1, keepdims=True))
    logs = np.log(sides[:, 1] / sides[:, 0])

    def moved(ratios: list[float], nearest: Int[np.ndarray, " N"]) -> list[float]:
        return [
            float(np.exp(logs[nearest == place].mean())) if (nearest == place).any() else ratio
            for place, ratio in enumerate(ratios)
        ]

    best = found = _rounded(start)
    worth = mean_best(unit, [1.0], [1.0], best)
    for _ in range(STEPS):
        found = _rounded(moved(found, best_overlaps(unit, shapes([1.0], [1.0], found))[1]))
        if (now := mean_best(unit, [1.0], [1.0], found)) <= worth:
            break
        best, worth = found, now
    return best


def fit_scales(sides: Sides, strides: Sequence[float], start: Sequence[float], ratios: Sequence[float]) -> list[float]:
    """The fewest scales that are about as good as more are (`WORTH`), and never worse than `start`."""
    sides, given = _some(sides), _rounded(start)
    least = mean_best(sides, strides, given, ratios)
    fitted = [_fit_scales(sides, strides, count, ratios) for count in range(1, SCALES + 1)]
    overlaps = [mean_best(sides, strides, scales, ratios) for scales in fitted]
    enough = max(overlaps[-1] - WORTH, least)
    return next((scales for scales, overlap in zip(fitted, overlaps, strict=True) if overlap >= enough), given)


def _fit_scales(sides: Sides, strides: Sequence[float], count: int, ratios: Sequence[float]) -> list[float]:
    """The best that k-means finds from several starts, the lowest of which is the size of small boxes."""
    small = float(np.quantile(np.sqrt(sides.prod(axis=1)), 0.1)) / strides[0]
    octave = np.arange(count) / count
    starts = [small * 2 ** (octave + place / STARTS) for place in range(STARTS)]
    found = [_moved_scales(sides, strides, _rounded(scales), ratios) for scales in starts]
    return max(found, key=lambda scales: mean_best(sides, strides, scales, ratios))


def _moved_scales(sides: Sides, strides: Sequence[float], scales: list[float], ratios: Sequence[float]) -> list[float]:
    """Lloyd's algorithm: each scale becomes the geometric mean of the boxes nearest to it, in strides of a level."""
    sizes = np.sqrt(sides.prod(axis=1))
    best, worth = scales, -1.0
    for _ in range(STEPS):
        overlap, nearest = best_overlaps(sides, shapes(strides, scales, ratios))
        if overlap.mean() <= worth:
            break
        best, worth = scales, float(overlap.mean())
        level, place = nearest // (len(ratios) * len(scales)), nearest % len(scales)
        logs = np.log(sizes / np.asarray(strides, float)[level])
        scales = _rounded(
            float(np.exp(logs[place == own].mean())) if (place == own).any() else scale
            for own, scale in enumerate(scales)
        )
    return best


def _some(sides: Sides) -> Float[np.ndarray, "_n 2"]:
    return sides[:: -(-len(sides) // BOXES)]


def _rounded(values: Iterable[float]) -> list[float]:
    """Ascending, as they will be written."""
    return sorted(round(float(value), 2) for value in values)
