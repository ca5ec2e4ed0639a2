"""Boxes: their deltas, their sizes, their way between frames.

A box is xyxy in pixels, right and bottom edge exclusive. Intersection over union and NMS are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskbench.structures import Frame, Size

DeltaWeights = tuple[float, float]
"""What the deltas of a box's centre and those of its size are multiplied by."""
MAX_SCALE = math.log(1000 / 16)
"""Deltas of width and height are limited to this, both ways (MMDetection; detectron2 limits them upwards alone)."""


def encode(
    boxes: Float[Tensor, "N 4"], targets: Float[Tensor, "N 4"], weights: DeltaWeights = (1, 1)
) -> Float[Tensor, "N 4"]:
    """The deltas that move `boxes` onto `targets` (Girshick et al., CVPR 2014, appendix C), times `weights`."""
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    target_size, target_centre = targets[:, 2:] - targets[:, :2], (targets[:, 2:] + targets[:, :2]) / 2
    return torch.cat([(target_centre - centre) / size * weights[0], (target_size / size).log() * weights[1]], dim=1)


def decode(
    boxes: Float[Tensor, "N 4"], deltas: Float[Tensor, "N *K 4"], weights: DeltaWeights = (1, 1)
) -> Float[Tensor, "N *K 4"]:
    """`boxes` moved by `deltas`, one box or K of them (one a class) for each row."""
    boxes = boxes.view(len(boxes), *[1] * (deltas.ndim - 2), 4)
    size, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., 2:] + boxes[..., :2]) / 2
    moved = centre + deltas[..., :2] / weights[0] * size
    half = size * (deltas[..., 2:] / weights[1]).clamp(-MAX_SCALE, MAX_SCALE).exp() / 2
    return torch.cat([moved - half, moved + half], dim=-1)


def clip(boxes: Float[Tensor, "*N 4"], size: Size) -> Float[Tensor, "*N 4"]:
    """Boxes cut to a frame of `size` pixels."""
    height, width = size  # as numbers: a tensor of them would have to wait for the device
    return torch.stack([boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)], dim=-1).flatten(-2)


def not_empty(boxes: Float[Tensor, "N 4"]) -> Bool[Tensor, " N"]:
    return ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)


def to_photo(boxes: Float[Tensor, "N 4"], frame: Frame) -> Float[Tensor, "N 4"]:
    """Boxes of the network frame in photo pixels, cut to the photo."""
    vertical, horizontal = frame.scale
    x, y = boxes[:, 0::2] / horizontal, boxes[:, 1::2] / vertical
    return clip(torch.stack([x, y], dim=-1).flatten(1), frame.photo)


def batch_index(boxes: Sequence[Float[Tensor, "_ 4"]]) -> Float[Tensor, "N 5"]:
    """The boxes of all images under each other, the index of its image in front of each, as torchvision pools them."""
    rows = [torch.cat([box.new_full((len(box), 1), image), box], dim=1) for image, box in enumerate(boxes)]
    return torch.cat(rows)
