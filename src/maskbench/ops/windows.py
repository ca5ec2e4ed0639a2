"""Windows: square pieces of maps around a few of their cells.

B images   D channels   N cells   k cells a side of a window
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.ops.levels import constant, grouped, in_order


def windows(
    maps: Sequence[Float[Tensor, "B D _h _w"]], cells: Int64[Tensor, " N"], reach: int
) -> tuple[Float[Tensor, "N D k k"], Bool[Tensor, "N 1 k k"]]:
    """What lies around cells of several levels.

    Args:
        maps: of the levels.
        cells: numbered image by image, in an image level by level, in a level row by row.
        reach: cells on every side, so that a window has 2 · reach + 1 a side.

    Returns:
        The windows, and which of their cells lie on the map; those that don't repeat its edge.
    """
    counts = constant(tuple(level.shape[2] * level.shape[3] for level in maps), cells.device)
    ends = counts.cumsum(0)
    image, place = cells // ends[-1], cells % ends[-1]
    order = grouped(torch.bucketize(place, ends, right=True), len(maps))
    pieces, insides = [], []
    for level, start, own in zip(maps, ends - counts, order, strict=True):
        piece, inside = _of_level(level, image[own], place[own] - start, reach)
        pieces.append(piece)
        insides.append(inside)
    return in_order(pieces, order).permute(0, 3, 1, 2), in_order(insides, order)[:, None]


def _of_level(
    level: Float[Tensor, "B D h w"], image: Int64[Tensor, " N"], cell: Int64[Tensor, " N"], reach: int
) -> tuple[Float[Tensor, "N k k D"], Bool[Tensor, "N k k"]]:
    height, width = level.shape[2:]
    offset = torch.arange(-reach, reach + 1, device=cell.device)
    y = (cell // width)[:, None, None] + offset[:, None]
    x = (cell % width)[:, None, None] + offset
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    row = (image[:, None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
    table = level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])
    return F.embedding(row, table), inside
