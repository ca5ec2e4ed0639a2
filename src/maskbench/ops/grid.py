"""SOLO's grids: an image cut into cells on every level of a pyramid, and which cells learn which object.

N instances   L levels   S cells a side of a level   A cells of all levels   P positive cells   K cells
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.ops.levels import constant, grouped
from maskbench.ops.losses import dice, focal
from maskbench.ops.masks import centres_of_mass, instances_of, maskness, shrink, to_photo
from maskbench.ops.suppress import first_of_each, points_nms
from maskbench.structures import Batch, Frame, Instances, Masks, Size

SharedCells = Literal["reference", "smallest"]

CLAIMED_CELLS = 1 << 25
"""Cells of masks that are painted at a time to see which is best: 128 MB."""

Paint = Callable[[int, Int64[Tensor, " K"]], Float[Tensor, "K h w"]]
"""A level and some of its cells, numbered row by row → mask probabilities, at half its stride or at the size wanted."""


class Cells(NamedTuple):
    """Pairs of a positive grid cell and the instance it learns; a cell that several claim stands once for each."""

    instance: Int64[Tensor, " P"]
    level: Int64[Tensor, " P"]
    row: Int64[Tensor, " P"]
    column: Int64[Tensor, " P"]


class Claims(NamedTuple):
    """The same pairs, the cells numbered through the levels, row by row in each."""

    cell: Int64[Tensor, " P"]
    instance: Int64[Tensor, " P"]


@dataclass(frozen=True)
class Grids:
    """The grids of all levels, one after the other.

    Args:
        sides: cells a side, level by level.
        strides: of the levels, on which the masks are drawn at twice the size.
        ranges: √(w·h) in network pixels that a level learns, both ends inclusive; they overlap.
        sigma: share of an object's box, around its centre of mass, whose cells learn it.
        shared: who has a cell that several instances claim. "reference": the one that comes last, which depends on
            the order of the annotations. "smallest": the one of the fewest pixels, which has the fewest other cells to
            be learnt by (as FCOS decides, section 3.1).

    Raises:
        ConfigError: not one side and one range a stride, or no such rule.
    """

    sides: tuple[int, ...]
    strides: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    sigma: float = 0.2
    shared: str = "reference"

    def __post_init__(self) -> None:
        if not len(self.sides) == len(self.ranges) == len(self.strides):
            raise ConfigError(
                f"one grid and one range per level: {len(self.strides)} levels, "
                f"grids {list(self.sides)}, ranges {list(self.ranges)}"
            )
        if self.shared not in get_args(SharedCells):
            raise ConfigError(f"shared_cells={self.shared!r}: expected one of {', '.join(get_args(SharedCells))}")

    # Numbers ---------------------------------------------------------------------------------------------------------

    @property
    def starts(self) -> tuple[int, ...]:
        """The number of each level's first cell, and of all cells."""
        return tuple(sum(side**2 for side in self.sides[:level]) for level in range(len(self.sides) + 1))

    def split(self, cell: Int64[Tensor, " K"]) -> list[tuple[Int64[Tensor, " _k"], Int64[Tensor, " _k"]]]:
        """For each level: which of the cells are its own, and their number there."""
        own = grouped(self.level_of(cell), len(self.sides))
        return [(rows, cell[rows] - start) for rows, start in zip(own, self.starts, strict=False)]

    def level_of(self, cell: Int64[Tensor, " K"]) -> Int64[Tensor, " K"]:
        return torch.bucketize(cell, constant(self.starts[1:], cell.device), right=True)

    def stride_of(self, cell: Int64[Tensor, " K"]) -> Int64[Tensor, " K"]:
        return constant(self.strides, cell.device)[self.level_of(cell)]

    # Targets ---------------------------------------------------------------------------------------------------------

    def claims(self, target: Instances) -> Claims:
        """Every pair of an instance and a cell that lies in its centre."""
        cells = grid_cells(target.masks.dense(), target.boxes, self.sides, self.ranges, self.sigma)
        side, start = (constant(numbers, cells.level.device) for numbers in (self.sides, self.starts))
        return Claims(start[cells.level] + cells.row * side[cells.level] + cells.column, cells.instance)

    def owners(self, claims: Claims, target: Instances) -> Claims:
        """The pairs that stay when each cell goes to one instance, by the rule `shared`."""
        rank = torch.arange(len(target), device=claims.cell.device)
        if self.shared == "smallest":
            rank = len(target) - 1 - _by_size(target).argsort()
        highest = rank.new_full((self.starts[-1],), -1)
        highest = highest.scatter_reduce(0, claims.cell, rank[claims.instance], reduce="amax")
        stays = rank[claims.instance] == highest[claims.cell]
        return Claims(claims.cell[stays], claims.instance[stays])

    def labels(self, owners: Claims, target: Instances, background: int) -> Int64[Tensor, " A"]:
        """The class that each cell learns: that of the instance which owns it, or background."""
        labels = torch.full((self.starts[-1],), background, device=owners.cell.device)
        return labels.index_copy(0, owners.cell, target.labels[owners.instance].long())

    def drawn(
        self,
        target: Instances,
        frame: Frame,
        scores: Float[Tensor, "A C"],
        paint: Callable[[Int64[Tensor, " K"]], Float[Tensor, "K h w"]],
        stride: int,
    ) -> Instances:
        """Each object as the best of the cells that learn it draws it; what fits no level, and has none, is missing.

        The best is the one that would be ranked highest: class score × maskness, as a prediction is scored.

        Args:
            target: objects of an image; their classes are taken as known.
            frame: of the image.
            scores: class probabilities of all cells.
            paint: cells, numbered through the levels → mask probabilities.
            stride: of these.
        """
        claims, size = self.claims(_on_device(target)), target.masks.size
        worth = scores[claims.cell, target.labels[claims.instance]]
        few = max(1, CLAIMED_CELLS * stride**2 // (size[0] * size[1]))
        worth = worth * torch.cat([maskness(paint(cells)) for cells in claims.cell.split(few)])
        best = first_of_each(claims.instance, worth)
        labels = target.labels[claims.instance[best]]
        return instances_of(to_photo(paint(claims.cell[best]), frame, stride), labels, worth[best])

    def reach(self, target: Instances) -> dict[str, tuple[int, int]]:
        """How many objects fit a level, have a cell and have one that no other takes; and each level's cells of one."""
        target = _on_device(target)
        claims, objects = self.claims(target), len(target)
        owners = self.owners(claims, target)
        cells, claimants = claims.cell.unique(return_counts=True)
        stages = {
            "a level of its size": (int(fitting(target.boxes, self.ranges).any(dim=1).sum()), objects),
            "a cell": (len(claims.instance.unique()), objects),
            "a cell that is left to it": (len(owners.instance.unique()), objects),
        }
        for side, own in zip(self.sides, grouped(self.level_of(cells), len(self.sides)), strict=True):
            stages[f"cells of one object, {side} a side"] = (int((claimants[own] == 1).sum()), len(own))
        return stages

    def mask_losses(self, owners: Claims, target: Instances, paint: Paint) -> list[Float[Tensor, ""]]:
        """The dice losses of one image, summed level by level: masks are compared at half their level's stride."""
        sums, masks = [], target.masks.dense()
        for level, (rows, cell) in enumerate(self.split(owners.cell)):
            wanted = shrink(masks, self.strides[level] // 2)[owners.instance[rows]]
            sums.append(dice(paint(level, cell), wanted).sum())
        return sums

    # Masks of several levels at one size -----------------------------------------------------------------------------

    def painted(self, cell: Int64[Tensor, " K"], size: Size | torch.Size, paint: Paint) -> Float[Tensor, "K H W"]:
        """Mask probabilities of cells, numbered through the levels, each level's brought to `size`."""
        maps = torch.zeros((len(cell), *size), device=cell.device)
        for level, (rows, own) in enumerate(self.split(cell)):
            maps[rows] = resized(paint(level, own), size)
        return maps

    def redrawn(self, batch: Batch) -> list[Instances]:
        """The truth in photo pixels, each mask drawn at half the stride of the finest level of its size."""
        return [self._redrawn(*image) for image in zip(batch.targets, batch.frames, strict=True)]

    def _redrawn(self, target: Instances, frame: Frame) -> Instances:
        masks = target.masks.dense().to(target.boxes.device)
        maps = shrink(masks, self.strides[0] // 2).float()
        level = fitting(target.boxes, self.ranges).long().argmax(dim=1)  # the first that fits; level 0 where none does
        for index in range(1, len(self.strides)):
            rows = (level == index).nonzero()[:, 0]
            maps[rows] = resized(shrink(masks[rows], self.strides[index] // 2).float(), maps.shape[1:])
        return instances_of(to_photo(maps, frame, self.strides[0] // 2), target.labels, target.scores)


def _on_device(target: Instances) -> Instances:
    """Masks that were encoded are in host memory."""
    return replace(target, masks=Masks(target.masks.dense().to(target.boxes.device)))


def grid_losses(
    logits: Sequence[Float[Tensor, "B C _s _s"]],
    labels: Sequence[Int64[Tensor, " A"]],
    dices: Sequence[Float[Tensor, ""]],
    mask_weight: float,
) -> dict[str, Float[Tensor, ""]]:
    """What the family learns from: classes of all cells and masks of positive ones (SOLO, section 3.3.2).

    Args:
        logits: of every level's grid.
        labels: the class that each cell of an image learns; C is background.
        dices: sums of the dice losses of positive cells.
        mask_weight: of the dice losses against the focal loss.
    """
    label = torch.stack(list(labels)).flatten()
    positives = (label < logits[0].shape[1]).sum()
    return {
        "mask": mask_weight * torch.stack(list(dices)).sum() / positives.clamp(min=1),
        "class": focal(flat(logits).float().flatten(0, 1), label) / (positives + 1),
    }


def require_pyramid(strides: Sequence[int]) -> None:
    """Raise `ConfigError` where a backbone's maps are not those that the grids' levels are made of."""
    if tuple(strides) != (4, 8, 16, 32):
        raise ConfigError(
            f"grids lie on what a pyramid makes of maps of strides [4, 8, 16, 32], but the backbone's have "
            f"{list(strides)}: leave backbone.strides as it is"
        )


def head_levels(levels: Sequence[Float[Tensor, "B D _h _w"]]) -> list[Tensor]:
    """P2…P6 at the strides of the grids: the finest halved, the coarsest at the size of the one before."""
    first, *middle, last = levels
    return [
        F.interpolate(first, scale_factor=0.5, mode="bilinear"),
        *middle,
        F.interpolate(last, size=middle[-1].shape[-2:], mode="bilinear"),
    ]


def flat(levels: Sequence[Float[Tensor, "B D _s _s"]]) -> Float[Tensor, "B A D"]:
    """The cells of all levels under each other, row by row."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)


def cell_scores(logits: Sequence[Float[Tensor, "B C _s _s"]], *, points: bool) -> Float[Tensor, "B A C"]:
    """Class probabilities of all cells; with `points` 0 where a neighbour has a better one of the same class."""
    scores = flat(logits).float().sigmoid()
    if not points:
        return scores
    sides = [level.shape[-2:] for level in logits]
    levels = zip(scores.split([side.numel() for side in sides], dim=1), sides, strict=True)
    return flat([points_nms(level.unflatten(1, side).permute(0, 3, 1, 2)) for level, side in levels])


def resized(maps: Float[Tensor, "K h w"], size: Size | torch.Size) -> Float[Tensor, "K H W"]:
    """Maps brought to another size, bilinearly."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear")[:, 0] if maps.shape[1:] != size else maps


def fitting(boxes: Float[Tensor, "N 4"], ranges: Sequence[tuple[float, float]]) -> Bool[Tensor, "N L"]:
    """The levels whose range, both ends inclusive, holds √(w·h) of each box."""
    scale = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt()
    limits = torch.tensor(ranges, device=boxes.device, dtype=scale.dtype)
    return (scale[:, None] >= limits[:, 0]) & (scale[:, None] <= limits[:, 1])


def grid_cells(
    masks: Bool[Tensor, "N H W"],
    boxes: Float[Tensor, "N 4"],
    sides: Sequence[int],
    ranges: Sequence[tuple[float, float]],
    sigma: float = 0.2,
) -> Cells:
    """The cells of every level that learn each instance (SOLO, section 3.3.1).

    On the levels whose range holds its size an instance takes the cells under the central `sigma` of its box around its
    centre of mass, at most the one that holds the centre and its eight neighbours. H and W are those of the padded
    network input.
    """
    device, size = masks.device, masks.shape[1:]
    cells = torch.tensor(sides, device=device)
    extent = boxes[:, [3, 2]] - boxes[:, [1, 0]]
    centre = centres_of_mass(masks)
    low = _cell_of(centre - 0.5 * sigma * extent, size, cells)
    middle = _cell_of(centre, size, cells)
    high = _cell_of(centre + 0.5 * sigma * extent, size, cells)

    offset = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], device=device)
    candidate = middle[:, :, None] + offset  # [N L 9 2]
    inside = ((candidate >= low[:, :, None]) & (candidate <= high[:, :, None])).all(dim=-1)
    instance, level, neighbour = (inside & fitting(boxes, ranges)[:, :, None]).nonzero(as_tuple=True)
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


def _by_size(target: Instances) -> Int64[Tensor, " N"]:
    """Rows by the pixels of their masks, the smallest first; where they are equal by where the mask and its box lie."""
    masks = target.masks.dense()
    keys = [*target.boxes.unbind(dim=1), *centres_of_mass(masks).unbind(dim=1), masks.sum(dim=(1, 2))]
    order = torch.arange(len(target), device=target.boxes.device)
    for key in keys:  # the last one counts most, since each sorts what the others left equal
        order = order[key[order].argsort(stable=True)]
    return order
