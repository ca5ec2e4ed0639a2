"""Pooling a region from the level of a pyramid that fits its size.

N regions   D channels   s cells a side of a pooled region
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align, roi_pool

from maskbench.errors import ConfigError
from maskbench.ops.boxes import batch_index


@runtime_checkable
class RegionPool(Protocol):
    """How the features of a region become a grid of s × s cells."""

    def __call__(
        self, feature: Float[Tensor, "B D h w"], rois: Float[Tensor, "N 5"], size: int, scale: float
    ) -> Float[Tensor, "N D s s"]:
        """Pool `rois` (image, then xyxy in network pixels) from a map of `scale` cells a pixel."""


@dataclass(frozen=True)
class RoIAlign:
    """Nothing is rounded: each bin takes bilinear samples where they lie (Mask R-CNN, section 3).

    Args:
        sampling: samples a bin and side (0: as many as the bin has map cells, rounded up).
        reduce: what a bin makes of its samples, "average" or "max", which needs a fixed number of them.
        aligned: whether a pixel's centre lies half a pixel inside it, as it does since detectron2; torchvision's
            detectors were trained without.
    """

    sampling: int = 0
    reduce: str = "average"
    aligned: bool = True

    def __post_init__(self) -> None:
        _check(self.reduce)
        if self.reduce == "max" and self.sampling < 1:
            raise ConfigError(f"sampling={self.sampling}: the largest of a bin's samples needs at least 1 a side")

    def __call__(
        self, feature: Float[Tensor, "B D h w"], rois: Float[Tensor, "N 5"], size: int, scale: float
    ) -> Float[Tensor, "N D s s"]:
        settings = {"spatial_scale": scale, "aligned": self.aligned}
        if self.reduce == "average":
            return roi_align(feature, rois, size, sampling_ratio=self.sampling, **settings)
        # one sample in each of sampling² times as many bins: the same places
        samples = roi_align(feature, rois, size * self.sampling, sampling_ratio=1, **settings)
        return F.max_pool2d(samples, self.sampling) if len(samples) else samples[..., :size, :size]


@dataclass(frozen=True)
class RoIWarp:
    """The box is rounded to whole cells of the map, its bins are not (Dai et al., CVPR 2016; Mask R-CNN, table 2c).

    Args:
        sampling: samples a bin and side (0: as many as the bin has map cells, rounded up).
        reduce: what a bin makes of its samples, "average" or "max".
    """

    sampling: int = 0
    reduce: str = "average"

    def __post_init__(self) -> None:
        RoIAlign(self.sampling, self.reduce)

    def __call__(
        self, feature: Float[Tensor, "B D h w"], rois: Float[Tensor, "N 5"], size: int, scale: float
    ) -> Float[Tensor, "N D s s"]:
        cells = (rois[:, 1:] * scale).round()
        # the last cell belongs to the box, as in RoIPool
        whole = torch.cat([cells[:, :2], torch.maximum(cells[:, 2:], cells[:, :2]) + 1], dim=1) / scale
        return RoIAlign(self.sampling, self.reduce)(feature, torch.cat([rois[:, :1], whole], dim=1), size, scale)


@dataclass(frozen=True)
class RoIPool:
    """Box and bins are rounded to whole cells, and a bin takes its largest (Girshick, ICCV 2015, section 2.1)."""

    def __call__(
        self, feature: Float[Tensor, "B D h w"], rois: Float[Tensor, "N 5"], size: int, scale: float
    ) -> Float[Tensor, "N D s s"]:
        return roi_pool(feature, rois, size, spatial_scale=scale)


def _check(reduce: str) -> None:
    if reduce not in ("average", "max"):
        raise ConfigError(f"reduce={reduce!r}: expected average or max")


def levels_of(boxes: Float[Tensor, "N 4"], levels: int, finest: float = 56.0) -> Int64[Tensor, " N"]:
    """The level of each box: 0 up to twice `finest` pixels a side, one more each doubling (FPN, eq. 1)."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt()
    return torch.log2(side / finest + 1e-6).floor().clamp(0, levels - 1).long()


def pool(
    features: Sequence[Float[Tensor, "B D _h _w"]],
    strides: Sequence[int],
    boxes: Sequence[Float[Tensor, "_ 4"]],
    size: int,
    *,
    how: RegionPool,
    finest: float = 56.0,
) -> Float[Tensor, "N D s s"]:
    """The boxes of every image, each pooled from its own level.

    Args:
        features: maps of the levels, fine to coarse; `strides` are theirs.
        boxes: one tensor an image, in network pixels; their rows follow each other in the result.
        size: cells a side of the result.
        how: makes cells of a region.
        finest: pixels a side of the boxes that the finest level is made for.
    """
    rois = batch_index(boxes)
    level = levels_of(rois[:, 1:], len(features), finest)
    # roi_align has no kernel for half precision on every device; its output goes on in the precision of the features.
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], size, size))
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        rows = (level == index).nonzero()[:, 0]
        region = how(feature.float(), rois[rows].float(), size, 1 / stride)
        pooled = pooled.index_copy(0, rows, region.to(pooled.dtype))
    return pooled
