"""SOLO's grids and the sizes that their levels learn, so that few objects lose their cell to another.

N objects   L levels   S cells a side of a level
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Bool, Int

from maskbench.data.fitting.seen import Seen

STRIDES = (8, 8, 16, 32, 32)
"""Of the levels that grids lie on (`ops.grid.head_levels`)."""
LOST = 0.02
"""Share of the objects that may be left without a cell: about as many of COCO's are in the paper's grids."""
LEAST, MOST, STEP = 12, 128, 4
"""Cells a side: the paper's coarsest grid, what memory bears (16,384 cells), and between what is chosen."""
SPANNED = 2.5
"""Cells that the smallest object of a level spans at least; the paper's span 2.2 to 5.8 at a short side of 800."""
SMALLEST = 3
"""Cells of its feature map that the smallest object of a level spans."""

Ranges = Sequence[Sequence[float]]


def fit_ranges(seen: Seen) -> list[list[float]]:
    """√(w·h) that each level learns: the first the smaller half of the objects, each further one twice as large.

    Ranges overlap by half, as in the paper, unless an object would span too few cells of its level's map. At a short
    side of 800 the median object of COCO has 90 px, and the paper's first range ends at 96.
    """
    first = max(SMALLEST * STRIDES[1], 4 * round(float(np.median(seen.sizes)) / 4))
    ends = [first * 2**level for level in range(len(STRIDES) - 1)]
    lows = [max(end / 2, SMALLEST * stride) for end, stride in zip(ends, STRIDES[1:], strict=True)]
    last = max(2048, 2 ** int(np.ceil(np.log2(seen.photos.max()))))
    return [[float(low), float(high)] for low, high in zip([1, *lows], [*ends, last], strict=True)]


def cells(seen: Seen, side: int, range_: Sequence[float]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "n 2"]]:
    """The objects of a level and the row and column of the cell that holds their centre, as `ops.grid` has it."""
    low, high = range_
    own = np.flatnonzero((seen.sizes >= low) & (seen.sizes <= high))
    frame = seen.padded[seen.photo[own]].astype(np.float32)
    relative = seen.centres[own][:, ::-1].astype(np.float32) / frame
    cell = (relative / (np.float32(1) / np.float32(side))).astype(int)
    return own, cell.clip(0, side - 1)


def keeps(seen: Seen, side: int, range_: Sequence[float]) -> Bool[np.ndarray, " N"]:
    """Which objects have the cell of their centre on a level; of several in one cell the last has it."""
    own, cell = cells(seen, side, range_)
    number = (seen.photo[own] * side + cell[:, 0]) * side + cell[:, 1]
    _, last = np.unique(number[::-1], return_index=True)
    kept = np.zeros(len(seen), bool)
    kept[own[len(own) - 1 - last]] = True
    return kept


def lost(seen: Seen, sides: Sequence[int], ranges: Ranges) -> float:
    """Share of the objects that have the cell of their centre on none of the levels."""
    return _left([keeps(seen, side, range_) for side, range_ in zip(sides, ranges, strict=True)])


def _left(kept: Sequence[Bool[np.ndarray, " N"]]) -> float:
    """Share of the objects that are kept on none of the levels."""
    return float(1 - np.any(kept, axis=0).mean())


def fit_grids(seen: Seen, ranges: Ranges) -> list[int]:
    """Cells a side of each level: the fewest that keep `lost` below `LOST`, as far as a finer grid helps at all.

    They begin with what the smallest object of a level needs (`SPANNED`), and the level whose finer grid saves most
    objects for a cell more gets it, until few enough are lost.
    """
    short = float(np.median(seen.padded.min(axis=1)))
    needed = [np.ceil(SPANNED * short / max(low, 1) / STEP) * STEP for low, _ in ranges]
    sides = [int(np.clip(side, LEAST, MOST)) for side in needed]
    sides[0] = sides[1]  # whose smallest objects may have any size

    @cache
    def kept(level: int, side: int) -> Bool[np.ndarray, " N"]:
        return keeps(seen, side, ranges[level])

    def left(sides: Sequence[int]) -> float:
        return _left([kept(level, side) for level, side in enumerate(sides)])

    while (now := left(sides)) > LOST:
        finer = [
            [*sides[:level], more, *sides[level + 1 :]]
            for level, side in enumerate(sides)
            for more in range(side + STEP, MOST + 1, STEP)
        ]
        gains = [(now - left(each)) / (sum(s * s for s in each) - sum(s * s for s in sides)) for each in finer]
        if not gains or max(gains) <= 0:
            break
        sides = finer[int(np.argmax(gains))]
    return sides
