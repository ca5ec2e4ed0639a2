"""Flows: fields that lead every cell of an object to its middle, and what is found by following them.

Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation", Nature Methods 2021, methods section.

B images   h w cells of a map   P cells that follow   M sinks
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from maskbench.ops.suppress import first_of_each

WAYS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""To a cell itself and its eight neighbours, in rows and columns."""


def flows(cells: Int64[Tensor, "B h w"]) -> Float[Tensor, "B 2 h w"]:
    """Unit vectors (row, column) up the heat that spreads inside each object from its middle; 0 outside.

    The source is the cell of the object that lies nearest to the median of its rows and columns. Heat is spread for
    twice as many steps as the object's box has rows and columns; its logarithm is climbed, since it falls off
    exponentially, and in double precision, since far from the source it is tiny.

    Args:
        cells: the object of each cell, numbered for each image; −1 where there is none.
    """
    apart = _numbered(cells)
    inside, source = apart >= 0, _sources(apart)
    same = {way: (inside & (_shifted(apart, way, -1) == apart)).double() for way in WAYS}
    heat, steps = torch.zeros_like(source), 2 * _extents(apart)
    for step in range(int(steps.amax()) if inside.any() else 0):
        warm = heat + source
        warm = torch.stack([_shifted(warm, way, 0.0) * own for way, own in same.items()]).sum(dim=0) / len(WAYS)
        heat = torch.where(step < steps, warm, heat)
    heat = torch.log1p(heat)
    # towards a neighbour that is not of the object heat neither rises nor falls
    down, up, right, left = (
        (_shifted(heat, way, 0.0) - heat) * same[way] for way in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    climb = torch.stack([down - up, right - left], dim=1)
    return F.normalize(climb, dim=1, eps=1e-100).float() * inside[:, None]


def followed(
    flow: Float[Tensor, "2 h w"], inside: Bool[Tensor, "h w"], steps: int, stride: float = 1.0
) -> Float[Tensor, "P 2"]:
    """Where the cells `inside`, row by row, are after so many steps of `stride` cells along the flow (Euler)."""
    height, width = inside.shape
    last = torch.tensor([height - 1, width - 1], device=flow.device)
    field = (flow * inside)[None]  # outside there is nothing to follow
    position = inside.nonzero().float()
    for _ in range(steps):
        grid = (2 * (position + 0.5) / (last + 1) - 1).flip(1)[None, None]
        step = F.grid_sample(field, grid, align_corners=False)[0, :, 0].T
        position = (position + stride * step).clamp(min=0).minimum(last)
    return position


def sinks(ends: Float[Tensor, "P 2"], size: torch.Size, window: int, least: int) -> Float[Tensor, "M 2"]:
    """The cells in which most ends lie, of all in a square of `window` cells around, and in that square `least`."""
    height, width = size
    cell = ends.round().long()
    count = torch.bincount(cell[:, 0] * width + cell[:, 1], minlength=height * width).view(1, 1, height, width).float()
    around = F.avg_pool2d(count, window, stride=1, padding=window // 2, divisor_override=1)
    # the sum around tells cells of equally many apart, and what is still equal their order
    rank = count + around / (around.amax() + 1)
    rank = rank.flatten().argsort(stable=True).argsort().view_as(rank).float()
    top = F.max_pool2d(rank, window, stride=1, padding=window // 2) == rank
    return (top & (count > 0) & (around >= least))[0, 0].nonzero().float()


def _numbered(cells: Int64[Tensor, "B h w"]) -> Int64[Tensor, "B h w"]:
    """Numbers that no two images share."""
    most = int(cells.amax()) + 1 if cells.numel() else 0
    start = most * torch.arange(len(cells), device=cells.device)[:, None, None]
    return torch.where(cells >= 0, cells + start, -1)


def _shifted(maps: Shaped[Tensor, "B h w"], way: tuple[int, int], beyond: float) -> Shaped[Tensor, "B h w"]:
    """What lies that many rows below and columns to the right of each cell."""
    (y, x), (height, width) = way, maps.shape[1:]
    return F.pad(maps, (1, 1, 1, 1), value=beyond)[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]


def _sources(apart: Int64[Tensor, "B h w"]) -> Float64[Tensor, "B h w"]:
    """1 in the cell of each object that is nearest to the medians of its rows and columns."""
    image, row, column = (apart >= 0).nonzero(as_tuple=True)
    groups, member = apart[image, row, column].unique(return_inverse=True)
    middle = [_medians(axis, member, len(groups)) for axis in (row, column)]
    squared = (row - middle[0][member]) ** 2 + (column - middle[1][member]) ** 2
    first = first_of_each(member, -squared.double())
    source = torch.zeros(apart.shape, dtype=torch.float64, device=apart.device)
    source[image[first], row[first], column[first]] = 1
    return source


def _medians(values: Int64[Tensor, " P"], member: Int64[Tensor, " P"], count: int) -> Int64[Tensor, " M"]:
    """The lower median of each group's values."""
    order = values.argsort(stable=True)
    order = order[member[order].argsort(stable=True)]
    size = torch.bincount(member, minlength=count)
    return values[order[size.cumsum(0) - size + (size - 1) // 2]]


def _extents(apart: Int64[Tensor, "B h w"]) -> Int64[Tensor, "B h w"]:
    """For each cell of an object: rows and columns of its box together."""
    image, row, column = (apart >= 0).nonzero(as_tuple=True)
    groups, member = apart[image, row, column].unique(return_inverse=True)
    extent = torch.zeros_like(groups)
    for axis in (row, column):
        low, high = (
            torch.zeros_like(groups).scatter_reduce(0, member, axis, reduce=way, include_self=False)
            for way in ("amin", "amax")
        )
        extent += high - low + 1
    steps = torch.zeros_like(apart)
    steps[image, row, column] = extent[member]
    return steps
