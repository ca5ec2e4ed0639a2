"""Who learns what: anchors and proposals to boxes, grid cells to instances.

N instances   A anchors or proposals   P positive cells   L levels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

from maskbench.ops.masks import centres_of_mass
from maskbench.structures import Size

NEGATIVE, IGNORED = -1, -2


@dataclass(frozen=True)
class Matcher:
    """Anchors or proposals to true boxes by intersection over union (Faster R-CNN, section 3.1.2).

    Args:
        positive: from here on a row takes the box it overlaps most.
        negative: below it is background; what lies between is ignored.
        low_quality: whether a box that overlaps a row by at least this makes the rows it overlaps most positive, even
            if they are below `positive` (None: it does not).
        takes: whether such a row then learns that box (MMDetection), or the one that it overlaps most (detectron2,
            torchvision).
    """

    positive: float
    negative: float
    low_quality: float | None = None
    takes: bool = True

    def __call__(self, rows: Float[Tensor, "A 4"], boxes: Float[Tensor, "N 4"]) -> Int64[Tensor, " A"]:
        """The index of the box each row is matched to, `NEGATIVE` or `IGNORED`."""
        matches = torch.full((len(rows),), NEGATIVE, dtype=torch.long, device=rows.device)
        if len(boxes) == 0 or len(rows) == 0:
            return matches
        overlap = box_iou(boxes, rows)
        best, index = overlap.max(dim=0)
        matches[best >= self.negative] = IGNORED
        matches = torch.where(best >= self.positive, index, matches)
        if self.low_quality is not None:
            peak = overlap.amax(dim=1, keepdim=True)
            claimed = (overlap == peak) & (peak >= self.low_quality)
            # Of several boxes that take a row the last one has it, as in the reference.
            order = torch.arange(1, len(boxes) + 1, device=rows.device)[:, None]
            last = (claimed * order).amax(dim=0)
            matches = torch.where(last > 0, last - 1 if self.takes else index, matches)
        return matches


@dataclass(frozen=True)
class Sampler:
    """A random draw of at most `count` rows, at most `positive_share` of them positive."""

    count: int
    positive_share: float

    def __call__(self, matches: Int64[Tensor, " A"]) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " M"]]:
        """Indices of the positive and of the negative rows drawn."""
        positive = _draw((matches >= 0).nonzero()[:, 0], int(self.count * self.positive_share))
        negative = _draw((matches == NEGATIVE).nonzero()[:, 0], self.count - len(positive))
        return positive, negative


EVERY = Sampler(2**62, 1.0)
"""Takes all rows that are not ignored."""


def _draw(rows: Int64[Tensor, " A"], count: int) -> Int64[Tensor, " K"]:
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), device=rows.device)[:count]]


class Cells(NamedTuple):
    """Pairs of a positive grid cell and the instance it learns; a cell that several claim stands once for each."""

    instance: Int64[Tensor, " P"]
    level: Int64[Tensor, " P"]
    row: Int64[Tensor, " P"]
    column: Int64[Tensor, " P"]


def grid_cells(
    masks: Bool[Tensor, "N H W"],
    boxes: Float[Tensor, "N 4"],
    grids: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    sigma: float = 0.2,
) -> Cells:
    """The cells of every level that learn each instance (SOLO, section 3.3.1).

    An instance belongs to the levels whose range, both ends inclusive, holds √(w·h) of its box. There it takes the
    cells under the central `sigma` of the box around its centre of mass, at most the one that holds the centre and its
    eight neighbours. H and W are those of the padded network input.
    """
    if len(grids) != len(ranges):
        raise ValueError(f"one range per grid: grids {list(grids)} but ranges {list(ranges)}")
    device, size = masks.device, masks.shape[1:]
    cells = torch.tensor(grids, device=device)
    extent = boxes[:, [3, 2]] - boxes[:, [1, 0]]
    centre = centres_of_mass(masks)
    low = _cell_of(centre - 0.5 * sigma * extent, size, cells)
    middle = _cell_of(centre, size, cells)
    high = _cell_of(centre + 0.5 * sigma * extent, size, cells)

    scale = extent.prod(dim=1).sqrt()
    limits = torch.tensor(ranges, device=device, dtype=scale.dtype)
    fits = (scale[:, None] >= limits[:, 0]) & (scale[:, None] <= limits[:, 1])

    offset = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], device=device)
    candidate = middle[:, :, None] + offset  # [N L 9 2]
    inside = ((candidate >= low[:, :, None]) & (candidate <= high[:, :, None])).all(dim=-1)
    instance, level, neighbour = (inside & fits[:, :, None]).nonzero(as_tuple=True)
    row, column = candidate[instance, level, neighbour].unbind(dim=1)
    return Cells(instance, level, row, column)


def _cell_of(
    point: Float[Tensor, "N 2"], size: Size | torch.Size, cells: Int64[Tensor, " L"]
) -> Int64[Tensor, "N L 2"]:
    """The cell of each level's grid that holds a point, cut to the grid.

    The reference divides by 1/S in single precision and truncates, where one would multiply by S: on an edge between
    two cells they differ.
    """
    relative = point / point.new_tensor([size[0], size[1]])
    cell = torch.div(relative[:, None], (1 / cells.to(point.dtype))[:, None], rounding_mode="trunc").long()
    return cell.clamp(min=0).minimum(cells[:, None] - 1)
