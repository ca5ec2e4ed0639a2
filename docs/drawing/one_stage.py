"""Cells of a grid and the masks they paint: the stages of SOLO and its kin.

S cells a side of a grid   K candidates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from drawing.layers import rings, row_colour, square, tiles
from drawing.panels import Paint, Panel
from drawing.seen import Seen, by, embedded
from maskbench.methods.decoupled_solo import DecoupledSOLO, at_one_size
from maskbench.methods.solo import SOLO
from maskbench.methods.solov2 import SOLOv2
from maskbench.ops.grid import cell_scores, flat
from maskbench.ops.masks import instances_of, to_photo
from maskbench.ops.suppress import Candidates
from maskbench.structures import Size

CANDIDATES = 100
"""That are drawn, the best."""


def solo(method: SOLO, raw: Any, seen: Seen) -> Iterator[Panel]:
    features = [level[0] for level in raw.features]
    size = (2 * features[0].shape[1], 2 * features[0].shape[2])
    cells = Cells.of(
        method, raw, seen, size, partial(method.grids.painted, size=size, paint=partial(method.paint, features))
    )
    yield cells.scored()
    yield cells.drawn("masks of their own channels")
    yield cells.rivals()


def decoupled_solo(method: DecoupledSOLO, raw: Any, seen: Seen) -> Iterator[Panel]:
    columns, rows = ([level[0] for level in maps] for maps in (raw.columns, raw.rows))
    size = (columns[0].shape[1], columns[0].shape[2])
    paint = partial(method.grids.painted, size=size, paint=at_one_size(columns, rows))
    cells = Cells.of(method, raw, seen, size, paint)
    yield cells.scored()
    each: list[list[Paint]] = []
    for cell, drawn in zip(cells.kept[:3], paint(cells.kept[:3]), strict=True):
        level, row, column = cells.place(cell)
        factors = [maps[level][number].float().sigmoid() for maps, number in ((columns, column), (rows, row))]
        each += [[seen.ground.map(own), cells.ring(cell), seen.ground.view] for own in (*factors, drawn)]
    edges = [row_colour(row) for row in range(len(each) // 3) for _ in range(3)]
    height, width = seen.frame.resized
    caption = "cells (rings): map of the column × map of the row = mask"
    yield Panel(caption, [tiles(each, 3, width / height, edges)])
    yield cells.rivals()


def solov2(method: SOLOv2, raw: Any, seen: Seen) -> Iterator[Panel]:
    kernels = flat(raw.kernels)[0]
    size = (raw.features.shape[2], raw.features.shape[3])
    cells = Cells.of(method, raw, seen, size, partial(method.paint_cells, kernels, raw.features))
    yield cells.scored()
    yield embedded(raw.features[0].float(), seen.ground.inside(size), seen, "mask features")
    yield cells.drawn("masks that their kernels make of the features")
    yield cells.rivals()


@dataclass(frozen=True)
class Cells:
    """The grid cells of a SOLO, from scores to what is left of them.

    Args:
        method: one of the three.
        raw: its output.
        seen: the photo.
        candidates: cells, by descending class score.
        kept: the cells of the instances, in their order.
        paint: cells → mask probabilities.
    """

    method: SOLO | DecoupledSOLO | SOLOv2
    raw: Any
    seen: Seen
    candidates: Candidates
    kept: Tensor
    paint: Callable[[Tensor], Tensor]

    @classmethod
    def of(
        cls,
        method: SOLO | DecoupledSOLO | SOLOv2,
        raw: Any,
        seen: Seen,
        size: Size,
        paint: Callable[[Tensor], Tensor],
    ) -> Cells:
        """Those of a photo, whose masks are of `size`."""
        candidates = Candidates.of(cell_scores(raw.logits, points=method.points_nms)[0], method.point)
        strides = method.grids.stride_of(candidates.cells)
        rows, _ = method.select(candidates, strides, size, lambda some: paint(candidates.cells[some]), method.point)
        kept = candidates.cells[rows[: len(seen.found)]]
        return cls(method, raw, seen, candidates, kept, paint)

    def place(self, cell: Tensor) -> tuple[int, int, int]:
        """Level, row and column of a cell that is numbered through the levels."""
        level = int(self.method.grids.level_of(cell[None]))
        return level, *divmod(int(cell) - self.method.grids.starts[level], self.method.grids.sides[level])

    def ring(self, cell: Tensor) -> Paint:
        """Around the middle of a cell."""
        level, row, column = self.place(cell)
        side, (height, width) = self.method.grids.sides[level], self.seen.ground.padded
        middle = torch.tensor([[(column + 0.5) * width / side, (row + 0.5) * height / side]])
        return rings(middle)

    def scored(self) -> Panel:
        """The class scores of the level that has most of the candidates."""
        sure = self.candidates.cells[self.candidates.scores >= self.seen.score]
        levels = self.method.grids.level_of(sure if len(sure) else self.candidates.cells)
        level = int(levels.bincount(minlength=1).argmax())
        scores = self.raw.logits[level][0].float().sigmoid().amax(dim=0)
        side, sides = self.method.grids.sides[level], len(self.method.grids.sides)
        return Panel(f"class scores of the {by(side, side)} grid, one of {sides}", [self.seen.ground.map(scores)])

    def drawn(self, what: str) -> Panel:
        """What the cells of the best four instances paint."""
        few = self.kept[:4]
        ground = self.seen.ground
        each = [[ground.map(own), self.ring(cell), ground.view] for cell, own in zip(few, self.paint(few), strict=True)]
        height, width = self.seen.frame.resized
        edges = [row_colour(row) for row in range(len(each))]
        return Panel(f"cells (rings) and the {what}", [tiles(each, square(len(each), 2), width / height, edges)])

    def rivals(self) -> Panel:
        """The candidates before suppression."""
        sure = self.candidates.scores >= self.seen.score
        few = sure.nonzero()[:CANDIDATES, 0]
        maps = self.paint(self.candidates.cells[few])
        masks = to_photo(maps, self.seen.frame, self.method.mask_stride)
        found = instances_of(masks, self.candidates.labels[few], self.candidates.scores[few])
        count = f"the best {len(few)} of {int(sure.sum())}" if len(few) < sure.sum() else str(len(few))
        suppression = {"matrix": "Matrix NMS", "mask": "NMS"}[self.method.select.suppression]
        return Panel(f"candidates before {suppression}: {count}", [self.seen.ground.objects(found)])
