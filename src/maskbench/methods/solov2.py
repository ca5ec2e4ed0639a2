"""SOLOv2: every grid cell predicts the 1×1 kernel that paints its object (Wang et al., NeurIPS 2020, arXiv 2003.10152).

B images   N objects of an image   C classes   S cells a side of a level's grid   E kernel channels
A cells of all grids   P positive cells with an object of theirs   K candidates   h w cells of the mask features
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, tower, with_coordinates, zero_of
from maskbench.nn.fpn import FPN
from maskbench.nn.semantic import SemanticFPN
from maskbench.ops.grid import Grids, cell_scores, flat, grid_losses, head_levels, require_pyramid
from maskbench.ops.losses import dice
from maskbench.ops.masks import instances_of, resampled, shrink, to_photo
from maskbench.ops.suppress import Candidates, Selection
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits and kernels of every level's grid, and the features that the kernels paint on."""

    logits: list[Float[Tensor, "B C _s _s"]]
    kernels: list[Float[Tensor, "B E _s _s"]]
    features: Float[Tensor, "B E h w"]


class SOLOv2(Segmenter):
    """SOLOv2 on a feature pyramid.

    The defaults are the paper's, as released (solov2_r50_fpn). An object's size alone decides its levels, so grids and
    ranges belong to an input size: those here are made for a short side of 800.

    Args:
        width: channels of the pyramid.
        head_width: of the class and kernel towers, which have `head_depth` convolutions.
        feature_width: of the mask feature branch.
        kernel_channels: of a kernel, and so of the mask features.
        grids: cells a side, level by level.
        ranges: √(w·h) in network pixels that a level learns, both ends inclusive; they overlap.
        sigma: share of an object's box, around its centre of mass, whose cells learn it.
        shared_cells: who has a cell that several objects claim. "reference": all of their masks stay with the cell's
            one kernel, and the later object gives the label. "smallest": both are the smallest object's (`ops.grid`).
        coordinates: whether the kernel tower and the coarsest mask features know where they are (CoordConv).
        mask_weight: of the dice loss.
        points_nms: whether of neighbouring cells only the best of a class may stand for an object, as released; it
            saves Matrix NMS most duplicates, and costs one of two objects whose centres lie a cell apart.
        suppression: "matrix" or "mask": Matrix NMS, or ordinary NMS on masks.
        nms_sigma: of Matrix NMS.
        nms_overlap: of ordinary NMS.
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
        head_width: int = 512,
        head_depth: int = 4,
        feature_width: int = 128,
        kernel_channels: int = 256,
        grids: Sequence[int] = (40, 36, 24, 16, 12),
        ranges: Sequence[tuple[float, float]] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)),
        sigma: float = 0.2,
        shared_cells: str = "reference",
        coordinates: bool = True,
        mask_weight: float = 3.0,
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
        self.kernel_tower = tower(width + len(self.axes), head_width, head_depth)
        self.class_tower = tower(width, head_width, head_depth)
        self.kernel = predictor(head_width, kernel_channels)
        self.classify = predictor(head_width, len(self.classes), prior=0.01)
        self.mask_features = SemanticFPN(width, 4, feature_width, kernel_channels, coordinates=coordinates, std=0.01)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        levels = self.fpn(self.backbone(images))
        logits, kernels = [], []
        for feature, side in zip(head_levels(levels), self.grids.sides, strict=True):
            # The coordinates are resized with the features, so a cell knows the centre of what it saw.
            cells = F.interpolate(with_coordinates(feature, self.axes), size=(side, side), mode="bilinear")
            kernels.append(self.kernel(self.kernel_tower(cells)))
            logits.append(self.classify(self.class_tower(cells[:, : self.fpn.width])))
        return Raw(logits, kernels, self.mask_features(levels))

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        kernels = flat(raw.kernels)
        dices, labels = [zero_of(raw.features, *raw.kernels)], []
        for row, target in enumerate(batch.targets):
            claims = self.grids.claims(target)
            owners = self.grids.owners(claims, target)
            labels.append(self.grids.labels(owners, target, background=len(self.classes)))
            learns = claims if self.grids.shared == "reference" else owners
            painted = self.paint(kernels[row, learns.cell], raw.features[row : row + 1])
            wanted = shrink(target.masks.dense(), self.mask_stride)[learns.instance]
            dices.append(dice(painted, wanted).sum())
        return grid_losses(raw.logits, labels, dices, self.mask_weight)

    def paint(self, kernels: Float[Tensor, "P E"], features: Float[Tensor, "1 E h w"]) -> Float[Tensor, "P h w"]:
        """Mask probabilities: each kernel is a 1×1 convolution over the mask features."""
        if len(kernels) == 0:  # a convolution has an output
            return features.new_zeros((0, *features.shape[2:]), dtype=torch.float32)
        if features.device.type == "cpu":
            painted = F.conv2d(features, kernels[:, :, None, None])[0].contiguous()
        else:
            # the same as a product, which writes mask by mask also where the features have channels last; a float32
            # product stays one, where torch's default runs convolutions in TF32
            painted = (kernels @ features[0].flatten(1)).unflatten(1, features.shape[2:])
        return painted.float().sigmoid()

    def paint_cells(
        self, kernels: Float[Tensor, "A E"], features: Float[Tensor, "1 E h w"], cell: Int64[Tensor, " P"]
    ) -> Float[Tensor, "P h w"]:
        """The mask probabilities of some cells of one image."""
        return self.paint(kernels[cell], features)

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        scores = cell_scores(raw.logits, points=self.points_nms)
        return [
            self._instances(*image)
            for image in zip(scores, flat(raw.kernels), raw.features.split(1), frames, strict=True)
        ]

    def _instances(
        self,
        scores: Float[Tensor, "A C"],
        kernels: Float[Tensor, "A E"],
        features: Float[Tensor, "1 E h w"],
        frame: Frame,
    ) -> Instances:
        candidates = Candidates.of(scores, self.point)

        def masks_of(rows: Int64[Tensor, " K"]) -> Float[Tensor, "K h w"]:
            return self.paint_cells(kernels, features, candidates.cells[rows])

        strides = self.grids.stride_of(candidates.cells)
        kept, scores = self.select(candidates, strides, features.shape[2:], masks_of, self.point)
        return instances_of(to_photo(masks_of(kept), frame, self.mask_stride), candidates.labels[kept], scores)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What the best of the kernels that learn each object paints, of the true class."""
        drawn = []
        heads = zip(flat(raw.logits).float().sigmoid(), flat(raw.kernels), raw.features.split(1), strict=True)
        for target, frame, (scores, kernels, features) in zip(batch.targets, batch.frames, heads, strict=True):
            paint = partial(self.paint_cells, kernels, features)
            drawn.append(self.grids.drawn(target, frame, scores, paint, self.mask_stride))
        return drawn

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return [self.grids.reach(target) for target in batch.targets]

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth at stride 4, resampled to the photo as a prediction is."""
        return resampled(batch, self.mask_stride)
