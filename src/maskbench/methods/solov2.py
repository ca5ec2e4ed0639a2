"""SOLOv2: every grid cell predicts the 1×1 kernel that paints its object (Wang et al., NeurIPS 2020, arXiv 2003.10152).

B images   N objects of an image   C classes   S cells a side of a level's grid   E kernel channels
P pairs of a positive cell and its object   K candidates   h w cells of the mask features (stride 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Segmenter
from maskbench.nn.blocks import predictor, tower, with_coordinates, zero_of
from maskbench.nn.fpn import FPN
from maskbench.nn.semantic import SemanticFPN
from maskbench.ops.assign import grid_cells
from maskbench.ops.losses import dice, focal
from maskbench.ops.masks import instances_of, shrink, to_photo
from maskbench.ops.suppress import above, best, matrix_nms, points_nms
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits and kernels of every level's grid, and the features that the kernels paint on."""

    logits: list[Float[Tensor, "B C _s _s"]]
    kernels: list[Float[Tensor, "B E _s _s"]]
    features: Float[Tensor, "B E h w"]


class Candidates(NamedTuple):
    """Cells of one image, by descending class score."""

    scores: Float[Tensor, " K"]
    labels: Int64[Tensor, " K"]
    kernels: Float[Tensor, "K E"]
    strides: Int64[Tensor, " K"]


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
        mask_weight: of the dice loss.
        points_nms: whether of neighbouring cells only the best of a class may stand for an object, as released; it
            saves Matrix NMS most duplicates, and costs one of two objects whose centres lie a cell apart.
        nms_sigma: of Matrix NMS.
        decayed: share of the score threshold that a score must keep after Matrix NMS (0.05 of 0.1 as released).
    """

    paradigm = "one-stage"
    default_point = OperatingPoint(score_threshold=0.1, candidates=500, max_instances=100)
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
        mask_weight: float = 3.0,
        points_nms: bool = True,
        nms_sigma: float = 2.0,
        decayed: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if not len(grids) == len(ranges) == len(self.strides):
            raise ConfigError(
                f"one grid and one range per level: {len(self.strides)} levels, "
                f"grids {list(grids)}, ranges {list(ranges)}"
            )
        self.grids, self.ranges = tuple(grids), tuple((low, high) for low, high in ranges)
        self.sigma, self.mask_weight = sigma, mask_weight
        self.points_nms, self.nms_sigma, self.decayed = points_nms, nms_sigma, decayed
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.kernel_tower = tower(width + 2, head_width, head_depth)
        self.class_tower = tower(width, head_width, head_depth)
        self.kernel = predictor(head_width, kernel_channels)
        self.classify = predictor(head_width, len(self.classes), prior=0.01)
        self.mask_features = SemanticFPN(width, 4, feature_width, kernel_channels, coordinates=True)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        levels = self.fpn(self.backbone(images))
        logits, kernels = [], []
        for feature, cells in zip(self._rescaled(levels), self.grids, strict=True):
            # The coordinates are resized with the features, so a cell knows the centre of what it saw.
            grid = F.interpolate(with_coordinates(feature), size=(cells, cells), mode="bilinear")
            kernels.append(self.kernel(self.kernel_tower(grid)))
            logits.append(self.classify(self.class_tower(grid[:, :-2])))
        return Raw(logits, kernels, self.mask_features(levels))

    @staticmethod
    def _rescaled(levels: Sequence[Tensor]) -> list[Tensor]:
        """P2…P6 at the head's strides: the finest halved, the coarsest at the size of the one before."""
        first, *middle, last = levels
        return [
            F.interpolate(first, scale_factor=0.5, mode="bilinear"),
            *middle,
            F.interpolate(last, size=middle[-1].shape[-2:], mode="bilinear"),
        ]

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        kernels = _flat(raw.kernels)
        logits = _flat(raw.logits).float()
        labels = torch.full(logits.shape[:2], len(self.classes), dtype=torch.long, device=logits.device)
        overlaps = [zero_of(raw.features, *raw.kernels)]
        for row, target in enumerate(batch.targets):
            cell, instance = self.positives(target)
            labels[row] = _paint(labels[row], cell, instance, target.labels)
            painted = self.paint(kernels[row, cell], raw.features[row])
            wanted = shrink(target.masks.dense(), self.mask_stride)[instance]
            overlaps.append(dice(painted, wanted).sum())
        positives = (labels < len(self.classes)).sum()
        return {
            "mask": self.mask_weight * torch.stack(overlaps).sum() / positives.clamp(min=1),
            "class": focal(logits.flatten(0, 1), labels.flatten()) / (positives + 1),
        }

    def positives(self, target: Instances) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
        """Positive cells, numbered through the levels, and the instance each learns.

        Two instances on one cell: both masks stay with the cell's one kernel, and the later instance gives the label,
        as in the released code.
        """
        cells = grid_cells(target.masks.dense(), target.boxes, self.grids, self.ranges, self.sigma)
        side = torch.tensor(self.grids, device=cells.row.device)
        start = F.pad((side**2).cumsum(0), (1, 0))[:-1]
        return start[cells.level] + cells.row * side[cells.level] + cells.column, cells.instance

    def paint(self, kernels: Float[Tensor, "P E"], features: Float[Tensor, "E h w"]) -> Float[Tensor, "P h w"]:
        """Mask probabilities: each kernel is a 1×1 convolution over the mask features."""
        return torch.einsum("pe,ehw->phw", kernels, features).float().sigmoid()

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        levels = [logits.float().sigmoid() for logits in raw.logits]
        scores = _flat([points_nms(level) for level in levels] if self.points_nms else levels)
        kernels = _flat(raw.kernels)
        return [
            self._instances(self.candidates(scores[row], kernels[row]), raw.features[row], frame)
            for row, frame in enumerate(frames)
        ]

    def candidates(self, scores: Float[Tensor, "A C"], kernels: Float[Tensor, "A E"]) -> Candidates:
        """Cells above the threshold, at most twice as many as enter Matrix NMS, so that memory is bounded."""
        cell, label = above(scores, self.point.score_threshold).unbind(dim=1)
        limit = None if self.point.candidates is None else 2 * self.point.candidates
        top = best(scores[cell, label], limit)
        cell, label = cell[top], label[top]
        sizes = torch.tensor([side**2 for side in self.grids], device=scores.device)
        strides = torch.tensor(self.strides, device=scores.device).repeat_interleave(sizes)
        return Candidates(scores[cell, label], label, kernels[cell], strides[cell])

    def _instances(self, candidates: Candidates, features: Float[Tensor, "E h w"], frame: Frame) -> Instances:
        maps = self.paint(candidates.kernels, features)
        masks, scores = _rescored(maps, candidates)
        top = best(scores, self.point.candidates)
        top = top[scores[top] > 0]
        labels = candidates.labels[top]
        decayed = matrix_nms(masks[top], labels, scores[top], self.nms_sigma)
        kept = best(decayed, self.point.max_instances)
        kept = kept[decayed[kept] >= self.decayed * self.point.score_threshold]
        photo = to_photo(maps[top[kept]], frame, self.mask_stride)
        return instances_of(photo, labels[kept], decayed[kept])

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth at stride 4, resampled to the photo as a prediction is."""
        drawn = []
        for target, frame in zip(batch.targets, batch.frames, strict=True):
            maps = shrink(target.masks.dense().to(target.boxes.device), self.mask_stride).float()
            drawn.append(instances_of(to_photo(maps, frame, self.mask_stride), target.labels, target.scores))
        return drawn


def _flat(levels: Sequence[Float[Tensor, "B D _s _s"]]) -> Float[Tensor, "B A D"]:
    """The cells of all levels under each other, row by row."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)


def _paint(
    labels: Int64[Tensor, " A"], cell: Int64[Tensor, " P"], instance: Int64[Tensor, " P"], truth: Int64[Tensor, " N"]
) -> Int64[Tensor, " A"]:
    """`labels` with each positive cell labelled as the last instance that claims it."""
    if len(truth) == 0:
        return labels
    owner = torch.full_like(labels, -1).scatter_reduce(0, cell, instance, reduce="amax")
    return torch.where(owner >= 0, truth[owner.clamp(min=0)], labels)


def _rescored(
    maps: Float[Tensor, "K h w"], candidates: Candidates
) -> tuple[Bool[Tensor, "K h w"], Float[Tensor, " K"]]:
    """Binary masks, and class score × mean probability inside; 0 for a mask of no more cells than its stride."""
    masks = maps > 0.5
    area = masks.sum(dim=(1, 2))
    maskness = (maps * masks).sum(dim=(1, 2)) / area.clamp(min=1)
    return masks, candidates.scores * maskness * (area > candidates.strides)
