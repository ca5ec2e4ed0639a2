"""Values at points: of maps, of masks, and which points are worth asking for (PointRend, Kirillov et al., CVPR 2020).

A point is (x, y) in shares of its frame's width and height, 0…1.

N regions or objects   D channels   S points   h w cells of a map
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.structures import Size


def sample_points(maps: Float[Tensor, "N D h w"], points: Float[Tensor, "N S 2"]) -> Float[Tensor, "N D S"]:
    """Bilinear values of each map at its own points; beyond the border lie zeros."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def in_frame(points: Float[Tensor, "N S 2"], boxes: Float[Tensor, "N 4"], size: Size) -> Float[Tensor, "N S 2"]:
    """Points in shares of a box → the same in shares of the frame of `size` pixels that the box lies in."""
    pixels = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
    return pixels / points.new_tensor([size[1], size[0]])


def sample_regions(
    feature: Float[Tensor, "B D h w"],
    boxes: Sequence[Float[Tensor, "_n 4"]],
    points: Float[Tensor, "N S 2"],
    stride: int,
) -> Float[Tensor, "N D S"]:
    """Features at points of the boxes of every image, whose rows follow each other."""
    size = (feature.shape[2] * stride, feature.shape[3] * stride)
    parts = []
    for row, (own, inside) in enumerate(zip(boxes, points.split([len(box) for box in boxes]), strict=True)):
        # all boxes of an image as one row of points, so that its map is not copied for each
        at = in_frame(inside, own, size).reshape(1, -1, 2)
        found = sample_points(feature[row : row + 1].float(), at)[0]
        parts.append(found.unflatten(1, inside.shape[:2]).transpose(0, 1))
    return torch.cat(parts)


def sample_masks(
    masks: Bool[Tensor, "M H W"], rows: Int64[Tensor, " N"], points: Float[Tensor, "N S 2"]
) -> Float[Tensor, "N S"]:
    """Bilinear values, 0…1, of mask `rows[n]` at the points of row n; nothing of the masks is copied."""
    height, width = masks.shape[1:]
    at = points * points.new_tensor([width, height]) - 0.5
    corner = at.floor()
    value = at.new_zeros(at.shape[:2])
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = (corner + at.new_tensor(step)).unbind(dim=-1)
        weight = (1 - (at[..., 0] - x).abs()) * (1 - (at[..., 1] - y).abs())
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column, line = x.clamp(0, width - 1).long(), y.clamp(0, height - 1).long()
        value = value + weight * (inside & masks[rows[:, None], line, column])
    return value


def cell_centres(cells: Int64[Tensor, "N S"], size: Size) -> Float[Tensor, "N S 2"]:
    """The centres of cells, numbered row by row, of a grid of `size`."""
    height, width = size
    return torch.stack([(cells % width + 0.5) / width, (cells // width + 0.5) / height], dim=-1)


def grid_points(count: int, cells: int, device: torch.device) -> Float[Tensor, "N S 2"]:
    """The centres of `cells` × `cells` cells, for each of `count` regions."""
    every = torch.arange(cells * cells, device=device).expand(count, -1)
    return cell_centres(every, (cells, cells))
