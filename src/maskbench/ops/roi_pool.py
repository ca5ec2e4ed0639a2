"""Pooling a region from the level of a pyramid that fits its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import roi_align

from maskbench.ops.boxes import batch_index


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
    sampling: int = 0,
    finest: float = 56.0,
) -> Float[Tensor, "N D s s"]:
    """RoIAlign of the boxes of every image, each from its own level (Mask R-CNN, section 3).

    Args:
        features: maps of the levels, fine to coarse; `strides` are theirs.
        boxes: one tensor an image, in network pixels; their rows follow each other in the result.
        size: cells a side of the result.
        sampling: samples a bin and side (0: as many as the bin has map cells, rounded up).
    """
    rois = batch_index(boxes)
    level = levels_of(rois[:, 1:], len(features), finest)
    # roi_align has no kernel for half precision on every device; its output goes on in the precision of the features.
    pooled = features[0].new_zeros((len(rois), features[0].shape[1], size, size))
    for index, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        rows = (level == index).nonzero()[:, 0]
        region = roi_align(
            feature.float(), rois[rows].float(), size, spatial_scale=1 / stride, sampling_ratio=sampling, aligned=True
        )
        pooled = pooled.index_copy(0, rows, region.to(pooled.dtype))
    return pooled
