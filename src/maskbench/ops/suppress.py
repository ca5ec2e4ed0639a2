"""Selecting among candidates that claim the same object."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.ops.masks import pairwise_iou


def points_nms(scores: Float[Tensor, "B C S T"]) -> Float[Tensor, "B C S T"]:
    """Scores that are the largest of the 2×2 window that ends at them; the others become 0 (SOLO's points NMS)."""
    largest = F.max_pool2d(scores, kernel_size=2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (largest == scores)


def matrix_nms(
    masks: Bool[Tensor, "N H W"], labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"], sigma: float = 2.0
) -> Float[Tensor, " N"]:
    """Scores decayed by the overlap with better masks of the same class, all at once (SOLOv2, section 3.3.2, eq. 5).

    The rows come sorted by descending score. With the Gaussian kernel as released, the decay is
    min over better i of exp(−sigma·iou_ij²) / exp(−sigma·iou_i²), iou_i the largest overlap of i with a mask better
    than itself; the paper's sigma of 0.5 divides where this one multiplies.
    """
    if len(masks) == 0:
        return scores
    same = labels[:, None] == labels[None, :]
    overlap = (pairwise_iou(masks, masks) * same).triu(diagonal=1)
    own = overlap.amax(dim=0)
    decay = (-sigma * overlap**2).exp() / (-sigma * own**2).exp()[:, None]
    return scores * decay.amin(dim=0)


def best(scores: Float[Tensor, " N"], count: int | None) -> Int64[Tensor, " K"]:
    """Rows of the `count` largest scores (None: all), descending; equal scores keep their order."""
    return scores.argsort(descending=True, stable=True)[:count]


def above(scores: Float[Tensor, "*S"], threshold: float) -> Int64[Tensor, "K D"]:
    """Indices of the scores greater than `threshold`; a score of 0 never passes."""
    return torch.nonzero(scores > threshold)
