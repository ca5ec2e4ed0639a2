"""Decoupled SOLO: a mask is the product of its cell's row and column (Wang et al., ECCV 2020, arXiv 1912.04488).

B images   N objects of an image   C classes   S cells a side of a level's grid, and so channels of each map
A cells of all grids   K candidates   h w cells of a level, 2h 2w of its masks
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Unpack

from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, tower, with_coordinates, zero_of
from maskbench.nn.fpn import FPN
from maskbench.ops.grid import Grids, Paint, cell_scores, flat, grid_losses, head_levels, require_pyramid, resized
from maskbench.ops.masks import instances_of, to_photo
from maskbench.ops.suppress import Candidates, Selection
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Of every level: class logits of its grid, and a map for each column and each row of it."""

    logits: list[Float[Tensor, "B C _s _s"]]
    columns: list[Float[Tensor, "B _s _h _w"]]
    rows: list[Float[Tensor, "B _s _h _w"]]


class DecoupledSOLO(Segmenter):
    """Decoupled SOLO on a feature pyramid.

    The defaults are the paper's, as released (decoupled_solo_r50_fpn), Matrix NMS in place of the paper's NMS among
    them. An object's size alone decides its levels, so grids and ranges belong to an input size: those here are made
    for a short side of 800.

    Args:
        width: channels of the pyramid.
        head_width: of the class and mask towers, which have `head_depth` convolutions.
        shared_tower: whether columns and rows come from one tower with both coordinates, as in the released light
            variant, and not from two towers of which each has its own.
        grids: cells a side, level by level.
        ranges: √(w·h) in network pixels that a level learns, both ends inclusive; they overlap.
        sigma: share of an object's box, around its centre of mass, whose cells learn it.
        shared_cells: who has a cell that several objects claim: "reference", the last of them, or "smallest"
            (`ops.grid.Grids`).
        coordinates: whether the mask towers know where they are (CoordConv).
        mask_weight: of the dice loss.
        mask_prior: probability with which a pixel starts to be part of a mask, in its row and in its column.
        points_nms: whether of neighbouring cells only the best of a class may stand for an object, as released.
        suppression: "matrix", Matrix NMS as released, or "mask", NMS on masks as in the paper.
        nms_sigma: of Matrix NMS.
        nms_overlap: of NMS on masks.
        decayed: share of the score threshold that a score must keep after Matrix NMS (0.05 of 0.1 as released).
    """

    paradigm = "one-stage"
    default_point = OperatingPoint(score_threshold=0.1, candidates=500, max_instances=100)
    oracles = ("cells",)
    strides = (8, 8, 16, 32, 32)
    mask_stride = 4

    def __init__(
        self,
        *,
        width: int = 256,
        head_width: int = 256,
        head_depth: int = 7,
        shared_tower: bool = False,
        grids: Sequence[int] = (40, 36, 24, 16, 12),
        ranges: Sequence[tuple[float, float]] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        sigma: float = 0.2,
        shared_cells: str = "reference",
        coordinates: bool = True,
        mask_weight: float = 3.0,
        mask_prior: float = 0.01,
        points_nms: bool = True,
        suppression: str = "matrix",
        nms_sigma: float = 2.0,
        nms_overlap: float = 0.5,
        decayed: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        require_pyramid(self.backbone.strides)
        self.grids = Grids(tuple(grids), self.strides, tuple(ranges), sigma, shared_cells)
        self.select = Selection(suppression, nms_sigma, nms_overlap, decayed)
        self.mask_weight, self.points_nms = mask_weight, points_nms
        towers = ("xy",) if shared_tower else ("x", "y")
        self.axes = towers if coordinates else ("",) * len(towers)
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.class_tower = tower(width, head_width, head_depth)
        self.mask_towers = nn.ModuleList(tower(width + len(axes), head_width, head_depth) for axes in self.axes)
        self.classify = predictor(head_width, len(self.classes), prior=0.01)
        self.columns = nn.ModuleList(predictor(head_width, side, prior=mask_prior) for side in grids)
        self.rows = nn.ModuleList(predictor(head_width, side, prior=mask_prior) for side in grids)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        raw = Raw([], [], [])
        levels = head_levels(self.fpn(self.backbone(images)))
        for level, side, columns, rows in zip(levels, self.grids.sides, self.columns, self.rows, strict=True):
            cells = F.interpolate(level, size=(side, side), mode="bilinear")
            raw.logits.append(self.classify(self.class_tower(cells)))
            maps = [
                F.interpolate(tower(with_coordinates(level, axes)), scale_factor=2, mode="bilinear")
                for tower, axes in zip(self.mask_towers, self.axes, strict=True)
            ]
            raw.columns.append(columns(maps[0]))
            raw.rows.append(rows(maps[-1]))  # of the same tower where both share one
        return raw

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        dices, labels = [zero_of(*raw.columns, *raw.rows)], []
        for image, target in enumerate(batch.targets):
            owners = self.grids.owners(self.grids.claims(target), target)
            labels.append(self.grids.labels(owners, target, background=len(self.classes)))
            columns, rows = ([level[image].float().sigmoid() for level in maps] for maps in (raw.columns, raw.rows))
            dices += self.grids.mask_losses(owners, target, partial(paint, columns, rows))
        return grid_losses(raw.logits, labels, dices, self.mask_weight)

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        scores = cell_scores(raw.logits, points=self.points_nms)
        images = zip(scores, zip(*raw.columns, strict=True), zip(*raw.rows, strict=True), frames, strict=True)
        return [self._instances(*image) for image in images]

    def _instances(
        self,
        scores: Float[Tensor, "A C"],
        columns: Sequence[Float[Tensor, "_s _h _w"]],
        rows: Sequence[Float[Tensor, "_s _h _w"]],
        frame: Frame,
    ) -> Instances:
        candidates = Candidates.of(scores, self.point)
        size, drawn = columns[0].shape[1:], at_one_size(columns, rows)

        def masks_of(chosen: Int64[Tensor, " K"]) -> Float[Tensor, "K H W"]:
            return self.grids.painted(candidates.cells[chosen], size, drawn)

        kept, scores = self.select(candidates, self.grids.stride_of(candidates.cells), size, masks_of, self.point)
        return instances_of(to_photo(masks_of(kept), frame, self.mask_stride), candidates.labels[kept], scores)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What the best of the cells that learn each object paints, of the true class."""
        drawn = []
        maps = zip(zip(*raw.columns, strict=True), zip(*raw.rows, strict=True), strict=True)
        heads = zip(flat(raw.logits).float().sigmoid(), maps, strict=True)
        for target, frame, (scores, (columns, rows)) in zip(batch.targets, batch.frames, heads, strict=True):
            paint = partial(self.grids.painted, size=columns[0].shape[1:], paint=at_one_size(columns, rows))
            drawn.append(self.grids.drawn(target, frame, scores, paint, self.mask_stride))
        return drawn

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return [self.grids.reach(target) for target in batch.targets]

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as the levels can draw it, resampled to the photo as a prediction is."""
        return self.grids.redrawn(batch)


def at_one_size(columns: Sequence[Float[Tensor, "_s _h _w"]], rows: Sequence[Float[Tensor, "_s _h _w"]]) -> Paint:
    """Paints at the size of the finest level, to which column and row probabilities of every level are brought."""
    size = columns[0].shape[1:]
    columns, rows = ([resized(level.float().sigmoid(), size) for level in maps] for maps in (columns, rows))
    return partial(paint, columns, rows)


def paint(
    columns: Sequence[Float[Tensor, "_s _h _w"]],
    rows: Sequence[Float[Tensor, "_s _h _w"]],
    level: int,
    cell: Int64[Tensor, " K"],
) -> Float[Tensor, "K _h _w"]:
    """Mask probabilities of a level's cells, numbered row by row: that of the cell's column × that of its row."""
    side = len(rows[level])
    return columns[level][cell % side] * rows[level][cell // side]
