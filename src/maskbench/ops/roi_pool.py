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
from maskbench.ops.levels import grouped, in_order
from maskbench.phases import phase


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
        if self.reduce == "average":
            return align(feature, rois, size, scale, sampling=self.sampling, aligned=self.aligned)
        # one sample in each of sampling² times as many bins: the same places
        samples = align(feature, rois, size * self.sampling, scale, sampling=1, aligned=self.aligned)
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


def align(
    feature: Float[Tensor, "B D h w"],
    rois: Float[Tensor, "N 5"],
    size: int,
    scale: float,
    *,
    sampling: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "N D s s"]:
    """RoIAlign, as torchvision has it.

    On a CPU its kernel runs on one thread, channel by channel. There, each bin is a bag of map cells with bilinear
    weights instead, summed by the operator that is made for bags of words: the same numbers in a tenth of the time,
    forward and back, where the map has its channels last.
    """
    if feature.device.type != "cpu":
        return roi_align(feature, rois, size, spatial_scale=scale, sampling_ratio=sampling, aligned=aligned)
    return _align_in_bags(feature, rois, size, scale, sampling, aligned)


def _align_in_bags(
    feature: Float[Tensor, "B D h w"], rois: Float[Tensor, "N 5"], size: int, scale: float, sampling: int, aligned: bool
) -> Float[Tensor, "N D s s"]:
    height, width = feature.shape[2:]
    table = feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])
    corner = rois[:, 1:3] * scale - 0.5 * aligned
    extent = rois[:, 3:] * scale - 0.5 * aligned - corner
    extent = extent if aligned else extent.clamp(min=1)
    counts = torch.full_like(extent, sampling) if sampling else (extent / size).ceil().clamp(min=1)
    # a region without extent has no samples, if their number goes by it
    real = torch.ones_like(extent) if sampling else (extent > 0).to(extent.dtype)
    parts, order = [], []
    # regions of one number of samples a bin at a time, of which there are a few
    for samples in counts.long().unique(dim=0):
        rows = (counts.long() == samples).all(dim=1).nonzero()[:, 0]
        x, x_weight = _taps(corner[rows, 0], extent[rows, 0], size, int(samples[0]), width)
        y, y_weight = _taps(corner[rows, 1], extent[rows, 1], size, int(samples[1]), height)
        first = rois[rows, 0].long().view(-1, 1, 1, 1, 1) * (height * width)
        cells = first + y[:, :, None, :, None] * width + x[:, None, :, None, :]
        weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        weights = weights * real[rows].prod(dim=1).view(-1, 1, 1, 1, 1)
        bags = F.embedding_bag(
            cells.flatten(3).flatten(0, 2), table, mode="sum", per_sample_weights=weights.flatten(3).flatten(0, 2)
        )
        parts.append(bags.view(len(rows), size, size, -1))
        order.append(rows)
    if not parts:
        return feature.new_zeros((0, feature.shape[1], size, size))
    return in_order(parts, order).permute(0, 3, 1, 2)


def _taps(
    low: Float[Tensor, " N"], extent: Float[Tensor, " N"], bins: int, samples: int, cells: int
) -> tuple[Int64[Tensor, "N b t"], Float[Tensor, "N b t"]]:
    """Along one axis: the cells that each bin's samples lie between, two a sample, and their shares in its mean."""
    place = (torch.arange(bins * samples, device=low.device) + 0.5) / (bins * samples)
    position = low[:, None] + extent[:, None] * place
    seen = (position >= -1) & (position <= cells)
    position = position.clamp(0, cells - 1)
    before = position.floor()
    share = position - before
    weights = torch.stack([1 - share, share], dim=-1) * seen[..., None] / samples
    index = torch.stack([before, (before + 1).clamp(max=cells - 1)], dim=-1).long()
    return index.view(len(low), bins, -1), weights.view(len(low), bins, -1)


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
    rois = batch_index(boxes).float()
    groups = grouped(levels_of(rois[:, 1:], len(features), finest), len(features))
    # There is no kernel for half precision on every device; the result goes on in the precision of the features.
    parts = [
        how(feature.float(), rois[rows], size, 1 / stride).to(feature.dtype)
        for feature, stride, rows in zip(features, strides, groups, strict=True)
    ]
    return in_order(parts, groups)


@dataclass(frozen=True)
class PyramidPool:
    """The features of regions, each from the level of P2…P5 that fits its size (FPN, section 4.2); P6 is the RPN's.

    Args:
        strides: of all levels, P6 among them.
        how: makes cells of a region.
    """

    strides: tuple[int, ...]
    how: RegionPool

    @phase("heads")
    def __call__(
        self, features: Sequence[Float[Tensor, "B D _h _w"]], boxes: Sequence[Float[Tensor, "_ 4"]], size: int
    ) -> Float[Tensor, "N D s s"]:
        """Regions of every image under each other, as `size` × `size` cells; `features` are those of all levels."""
        return pool(features[:-1], self.strides[:-1], boxes, size, how=self.how)
