"""Locations: cells of a pyramid that each find at most one object, and measure its box from where they are.

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, arXiv 1904.01355.

A locations of all levels   N objects of an image   L levels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from maskbench.errors import ConfigError

PAIRS = 1 << 22
"""Of a location and a box, that are compared at a time: some 100 MB."""


class Locations(NamedTuple):
    """The middles of all cells, level by level and row by row."""

    point: Float[Tensor, "A 2"]
    """x and y in pixels of the network input."""
    stride: Float[Tensor, " A"]
    """Of the location's level."""
    level: Int64[Tensor, " A"]

    @classmethod
    def of(cls, levels: Sequence[Float[Tensor, "B _d _h _w"]], strides: Sequence[int]) -> Locations:
        """Those of the maps of a pyramid."""
        parts = []
        for number, (maps, stride) in enumerate(zip(levels, strides, strict=True)):
            x, y = ((torch.arange(side, device=maps.device) + 0.5) * stride for side in (maps.shape[3], maps.shape[2]))
            point = torch.cartesian_prod(y, x).flip(1)
            parts.append((point, torch.full_like(point[:, 0], stride), torch.full_like(point[:, 0], number).long()))
        return cls(*map(torch.cat, zip(*parts, strict=True)))

    def chosen(self, rows: Bool[Tensor, " A"]) -> Locations:
        return Locations(self.point[rows], self.stride[rows], self.level[rows])

    def boxes(self, sides: Float[Tensor, "*B A 4"]) -> Float[Tensor, "*B A 4"]:
        """Distances to left, top, right and bottom, in strides → boxes."""
        away = sides * self.stride[:, None]
        return torch.cat([self.point - away[..., :2], self.point + away[..., 2:]], dim=-1)

    def sides(self, boxes: Float[Tensor, "A 4"]) -> Float[Tensor, "A 4"]:
        """What each location would say of its box, negative where it lies outside."""
        away = torch.cat([self.point - boxes[:, :2], boxes[:, 2:] - self.point], dim=1)
        return away / self.stride[:, None]

    def owners(
        self, boxes: Float[Tensor, "N 4"], ranges: Sequence[tuple[float, float]], radius: float
    ) -> Int64[Tensor, " A"]:
        """The object that each location learns, −1: none.

        It learns a box that it lies in, near the middle, whose farthest side is as far as its level learns; of several
        the smallest (section 3.2, with the centre sampling of the authors' later version).

        Args:
            boxes: in pixels of the network input.
            ranges: pixels from and to which the farthest side lies, by level.
            radius: strides from a box's middle, along each axis, in which locations learn it.

        Raises:
            ConfigError: not one range a level.
        """
        if len(ranges) <= int(self.level.amax()):
            raise ConfigError(f"one range a level: {int(self.level.amax()) + 1} levels but ranges {list(ranges)}")
        if not len(boxes):
            return torch.full_like(self.level, -1)
        limits = self.point.new_tensor(list(ranges))[self.level]
        step = max(1, PAIRS // len(boxes))
        parts = zip(self.point.split(step), self.stride.split(step), limits.split(step), strict=True)
        return torch.cat([_owners(*part, boxes, radius) for part in parts])


def _owners(
    point: Float[Tensor, "A 2"],
    stride: Float[Tensor, " A"],
    limits: Float[Tensor, "A 2"],
    boxes: Float[Tensor, "N 4"],
    radius: float,
) -> Int64[Tensor, " A"]:
    away = torch.cat([point[:, None] - boxes[:, :2], boxes[:, 2:] - point[:, None]], dim=2)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (point[:, None] - middle).abs().amax(dim=2) < radius * stride[:, None]
    farthest = away.amax(dim=2)
    in_range = (farthest >= limits[:, :1]) & (farthest <= limits[:, 1:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    learns = (away.amin(dim=2) > 0) & near & in_range
    smallest, owner = torch.where(learns, area, torch.inf).min(dim=1)
    return owner.masked_fill(smallest.isinf(), -1)


def centredness(sides: Float[Tensor, "A 4"]) -> Float[Tensor, " A"]:
    """1 in the middle of a box, 0 on its edge (eq. 3)."""
    low, high = torch.minimum(sides[:, :2], sides[:, 2:]), torch.maximum(sides[:, :2], sides[:, 2:])
    return (low / high.clamp(min=1e-6)).clamp(min=0).prod(dim=1).sqrt()
