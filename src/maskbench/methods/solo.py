"""SOLO: every grid cell has a channel of its own for its object's mask (Wang et al., ECCV 2020, arXiv 1912.04488).

B images   N objects of an image   C classes   S cells a side of a level's grid   E channels of the mask tower
A cells of all grids   P positive cells of a level   K candidates   h w cells of a level, 2h 2w of its masks
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, tower, with_coordinates, zero_of
from maskbench.nn.fpn import FPN
from maskbench.ops.grid import Grids, cell_scores, flat, grid_losses, head_levels, require_pyramid
from maskbench.ops.masks import instances_of, to_photo
from maskbench.ops.suppress import Candidates, Selection
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits of every level's grid, and the features of which a level's masks are 1×1 convolutions."""

    logits: list[Float[Tensor, "B C _s _s"]]
    features: list[Float[Tensor, "B E _h _w"]]


class SOLO(Segmenter):
    """SOLO on a feature pyramid.

    The defaults are the paper's, as released (solo_r50_fpn), Matrix NMS in place of the paper's NMS among them. An
    object's size alone decides its levels, so grids and ranges belong to an input size: those here are made for a short
    side of 800.

    A level has S² masks, of which training needs the positive cells' and prediction the candidates'. `forward` ends
    before the 1×1 convolution that makes them, and `mask_logits` works out the rows asked for: the same numbers as from
    all S², in a fraction of the memory.

    Args:
        width: channels of the pyramid.
        head_width: of the class and mask towers, which have `head_depth` convolutions.
        grids: cells a side, level by level.
        ranges: √(w·h) in network pixels that a level learns, both ends inclusive; they overlap.
        sigma: share of an object's box, around its centre of mass, whose cells learn it.
        shared_cells: who has a cell that several objects claim: "reference", the last of them, or "smallest"
            (`ops.grid.Grids`).
        coordinates: whether the mask tower knows where it is (CoordConv).
        mask_weight: of the dice loss.
        mask_prior: probability with which a pixel starts to be part of a mask.
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
        self.mask_weight, self.points_nms, self.axes = mask_weight, points_nms, "xy" if coordinates else ""
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.class_tower = tower(width, head_width, head_depth)
        self.mask_tower = tower(width + len(self.axes), head_width, head_depth)
        self.classify = predictor(head_width, len(self.classes), prior=0.01)
        self.masks = nn.ModuleList(predictor(head_width, side**2, kernel=1, prior=mask_prior) for side in grids)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        levels = head_levels(self.fpn(self.backbone(images)))
        cells = [
            F.interpolate(level, size=(side, side), mode="bilinear")
            for level, side in zip(levels, self.grids.sides, strict=True)
        ]
        return Raw(
            [self.classify(self.class_tower(level)) for level in cells],
            [self.mask_tower(with_coordinates(level, self.axes)) for level in levels],
        )

    def mask_logits(
        self, level: int, cell: Int64[Tensor, " P"], features: Float[Tensor, "E h w"]
    ) -> Float[Tensor, "P 2*h 2*w"]:
        """The masks of some cells of a level, numbered row by row.

        Up-sampling comes after the 1×1 convolution where the paper has it before. Both are linear and the weights of
        the first sum to 1, so they may change places.
        """
        predict = self.masks[level]
        assert isinstance(predict, nn.Conv2d)
        assert predict.bias is not None
        # cast here and not by autocast, which does not reach inside an einsum that somebody listens to (peak memory)
        rows = predict.weight[cell].flatten(1).to(features.dtype)
        maps = torch.einsum("pe,ehw->phw", rows, features) + predict.bias[cell][:, None, None]
        return F.interpolate(maps.float()[:, None], scale_factor=2, mode="bilinear")[:, 0]

    def paint(
        self, features: Sequence[Float[Tensor, "E _h _w"]], level: int, cell: Int64[Tensor, " P"]
    ) -> Float[Tensor, "P _H _W"]:
        """The mask probabilities of some cells of a level of one image."""
        return self.mask_logits(level, cell, features[level]).sigmoid()

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        dices, labels = [zero_of(*raw.features, *self.masks.parameters())], []
        for row, target in enumerate(batch.targets):
            owners = self.grids.owners(self.grids.claims(target), target)
            labels.append(self.grids.labels(owners, target, background=len(self.classes)))
            features = [level[row] for level in raw.features]
            dices += self.grids.mask_losses(owners, target, partial(self.paint, features))
        return grid_losses(raw.logits, labels, dices, self.mask_weight)

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        scores = cell_scores(raw.logits, points=self.points_nms)
        return [self._instances(*image) for image in zip(scores, zip(*raw.features, strict=True), frames, strict=True)]

    def _instances(
        self, scores: Float[Tensor, "A C"], features: Sequence[Float[Tensor, "E _h _w"]], frame: Frame
    ) -> Instances:
        candidates = Candidates.of(scores, self.point)
        size = (2 * features[0].shape[1], 2 * features[0].shape[2])

        def masks_of(rows: Int64[Tensor, " K"]) -> Float[Tensor, "K H W"]:
            return self.grids.painted(candidates.cells[rows], size, partial(self.paint, features))

        kept, scores = self.select(candidates, self.grids.stride_of(candidates.cells), size, masks_of, self.point)
        return instances_of(to_photo(masks_of(kept), frame, self.mask_stride), candidates.labels[kept], scores)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What the best of the cells that learn each object paints, of the true class."""
        drawn = []
        heads = zip(flat(raw.logits).float().sigmoid(), zip(*raw.features, strict=True), strict=True)
        for target, frame, (scores, features) in zip(batch.targets, batch.frames, heads, strict=True):
            size = (2 * features[0].shape[1], 2 * features[0].shape[2])
            paint = partial(self.grids.painted, size=size, paint=partial(self.paint, features))
            drawn.append(self.grids.drawn(target, frame, scores, paint, self.mask_stride))
        return drawn

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return [self.grids.reach(target) for target in batch.targets]

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as the levels can draw it, resampled to the photo as a prediction is."""
        return self.grids.redrawn(batch)
