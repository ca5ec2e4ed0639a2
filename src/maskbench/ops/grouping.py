"""Bottom-up: from grouped cells of a map to instances of the photo, and from true instances to cells.

N objects of an image   C classes   h w cells of a map   P foreground cells   M groups   K instances
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, cast, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.ops.cluster import Grouping
from maskbench.ops.masks import instances_of, label_map, shrink, to_photo
from maskbench.ops.suppress import best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

PADDING = -100
"""The class of cells beyond the photo, which `F.cross_entropy` leaves out."""

Balance = Literal["cells", "objects"]
"""What a loss of objects' cells is the mean over; large objects have most of the cells."""

# The truth as cells --------------------------------------------------------------------------------------------------


class TrueMaps(NamedTuple):
    """What the cells of a batch are."""

    cells: Int64[Tensor, "B h w"]
    """The object of each cell, −1 where there is none."""
    classes: Int64[Tensor, "B h w"]
    """Its class, background where there is none, and `PADDING` beyond the photo."""

    @property
    def inside(self) -> Bool[Tensor, "B h w"]:
        """The cells of the photos."""
        return self.classes != PADDING

    def certain(self, count: int) -> Float[Tensor, "B C h w"]:
        """The semantic map of somebody who knows: probability 1 for each cell's class, of `count` with background."""
        known = torch.where(self.inside, self.classes, count - 1)
        return F.one_hot(known, count).permute(0, 3, 1, 2).float()


def mean_over_objects(values: Float[Tensor, "B h w"], cells: Int64[Tensor, "B h w"]) -> Float[Tensor, ""]:
    """The mean over objects of the mean over their cells, so that small ones count as large ones do; 0 without any.

    Args:
        values: of each cell.
        cells: the object of each cell, numbered for each image; −1 leaves one out.
    """
    first = (cells.amax() + 1) * torch.arange(len(cells), device=cells.device)
    known = cells >= 0
    _, member, size = (cells + first[:, None, None])[known].unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(size)).index_add(0, member, values[known])
    return (sums / size).sum() / max(1, len(size))


def known_balance(balance: str) -> Balance:
    """One of `Balance`, or a ConfigError."""
    if balance not in get_args(Balance):
        raise ConfigError(f"balance={balance!r}: expected one of {', '.join(get_args(Balance))}")
    return cast(Balance, balance)


def true_maps(batch: Batch, background: int, stride: int) -> TrueMaps:
    """The objects and classes of the cells at 1/`stride`; `background` is the class of none."""
    cells = torch.stack([true_cells(target, stride) for target in batch.targets])
    classes = []
    for own, target, frame in zip(cells, batch.targets, batch.frames, strict=True):
        label = torch.cat([target.labels, target.labels.new_tensor([background])])[own]
        classes.append(torch.where(in_photo(own.shape, frame, stride, own.device), label, PADDING))
    return TrueMaps(cells, torch.stack(classes))


def true_cells(target: Instances, stride: int) -> Int64[Tensor, "h w"]:
    """The object of each cell of one image, −1 where there is none."""
    return label_map(shrink(target.masks.dense().to(target.boxes.device), stride))


def in_photo(size: Sequence[int], frame: Frame, stride: int, device: torch.device) -> Bool[Tensor, "h w"]:
    """The cells that the photo covers; beyond them is padding."""
    rows, columns = (
        torch.arange(side, device=device) * stride < length for side, length in zip(size, frame.resized, strict=True)
    )
    return rows[:, None] & columns[None]


def position(size: Sequence[int], device: torch.device) -> Int64[Tensor, "h w 2"]:
    """Row and column of every cell."""
    return torch.cartesian_prod(*(torch.arange(side, device=device) for side in size)).view(*size, 2)


def redrawn(batch: Batch, stride: int) -> list[Instances]:
    """The truth as one object a cell, drawn into the photo: the ceiling of what is made of cells."""
    found = []
    for target, frame in zip(batch.targets, batch.frames, strict=True):
        cells = true_cells(target, stride)
        maps = (cells[None] == torch.arange(len(target), device=cells.device)[:, None, None]).float()
        found.append(instances_of(to_photo(maps, frame, stride), target.labels, target.scores))
    return found


def enough_cells(batch: Batch, stride: int, smallest: int) -> list[dict[str, tuple[int, int]]]:
    """How many objects of each image have as many cells of their own as an instance must have."""
    stages = []
    for target in batch.targets:
        cells = true_cells(target, stride)
        sizes = torch.bincount(cells[cells >= 0], minlength=len(target))
        stages.append({f"{smallest} cells of its own": (int((sizes >= smallest).sum()), len(target))})
    return stages


# Semantic maps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SemanticMap:
    """What each cell of an image is taken for.

    Args:
        probabilities: of the classes, background last.
        frame: beyond whose photo a map is padding and never foreground.
        stride: of the map.
    """

    probabilities: Float[Tensor, "C h w"]
    frame: Frame
    stride: int

    @cached_property
    def label(self) -> Int64[Tensor, "h w"]:
        return self.probabilities.argmax(dim=0)

    @cached_property
    def foreground(self) -> Bool[Tensor, "h w"]:
        """The cells of the photo that are of a class."""
        inside = in_photo(self.label.shape, self.frame, self.stride, self.label.device)
        return (self.label < len(self.probabilities) - 1) & inside

    @property
    def outline(self) -> Float[Tensor, "h w"]:
        """The likeliest class against background, above one half where the class wins: so outlines interpolate."""
        *_, background = self.probabilities
        likeliest = self.probabilities[:-1].amax(dim=0)
        return likeliest / (likeliest + background)

    def areas(self, classes: Int64[Tensor, "h w"]) -> Int64[Tensor, "3 C"]:
        """Cells of each class: those that are rightly taken for it, those that are of it, those that are taken for it.

        Args:
            classes: what the cells are; `PADDING` does not count.
        """
        inside = classes != PADDING
        true, taken = classes[inside], self.label[inside]
        cells = (true[true == taken], true, taken)
        return torch.stack([torch.bincount(some, minlength=len(self.probabilities)) for some in cells])


def semantic_maps(probabilities: Float[Tensor, "B C h w"], frames: Sequence[Frame], stride: int) -> list[SemanticMap]:
    """One for each image of a batch."""
    return [SemanticMap(*image, stride) for image in zip(probabilities, frames, strict=True)]


# Groups --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Groups:
    """The foreground of an image, shared out.

    Args:
        member: the group of each foreground cell, row by row; −1: of none.
        probability: of each cell's class.
        distance: of each cell to its group's centre, in bandwidths or what the method measures by.
        label: the class of each group.
        centre: how sure each group's centre is (1 where a method doesn't tell).
        quality: the IoU that each group is expected to have with its object, where a method learns it.
    """

    member: Int64[Tensor, " P"]
    probability: Float[Tensor, " P"]
    distance: Float[Tensor, " P"]
    label: Int64[Tensor, " M"]
    centre: Float[Tensor, " M"]
    quality: Float[Tensor, " M"] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def size(self) -> Int64[Tensor, " M"]:
        """Cells of each."""
        return torch.bincount(self.member[self.member >= 0], minlength=len(self))

    def mean(self, values: Float[Tensor, "P ..."]) -> Float[Tensor, "M ..."]:
        """The mean over the cells of each group."""
        own = self.member >= 0
        total = values.new_zeros((len(self), *values.shape[1:])).index_add(0, self.member[own], values[own])
        return total / self.size.clamp(min=1).view(-1, *[1] * (values.ndim - 1))


def shared_out(
    known: SemanticMap, member: Int64[Tensor, " P"], distance: Float[Tensor, " P"], centre: Float[Tensor, " M"]
) -> Groups:
    """The groups of a semantic map's foreground, each of the class that most of its cells are of.

    Args:
        known: the map.
        member, distance, centre: as `Groups` has them.
    """
    inside = known.foreground
    label = known.label[inside]
    classes = majority(member, label, len(centre), len(known.probabilities) - 1)
    own = torch.where(member >= 0, torch.cat([classes, label.new_zeros(1)])[member], label)
    probability = known.probabilities[:, inside].gather(0, own[None])[0]
    return Groups(member, probability, distance, classes, centre)


def of_clusters(maps: Sequence[SemanticMap], found: Sequence[Grouping]) -> list[Groups]:
    """The clusters of each image's foreground as groups, of whose centres each is as sure as another."""
    return [
        shared_out(known, image.member, image.distance, image.distance.new_ones(len(image.centres)))
        for known, image in zip(maps, found, strict=True)
    ]


def majority(member: Int64[Tensor, " P"], labels: Int64[Tensor, " P"], count: int, classes: int) -> Int64[Tensor, " M"]:
    """The class that most cells of each group are of (Panoptic-DeepLab, section 3.3); of equals the first."""
    own = member >= 0
    votes = torch.bincount(member[own] * classes + labels[own], minlength=count * classes)
    return votes.view(count, classes).argmax(dim=1)


def group_iou(groups: Groups, known: SemanticMap, cells: Int64[Tensor, "h w"]) -> Float[Tensor, " M"]:
    """Of each group with the object that it overlaps most, whatever their classes."""
    objects = int(cells.amax()) + 1
    found = torch.full_like(cells, -1)
    found[known.foreground] = groups.member
    both = (found >= 0) & (cells >= 0)
    shared = torch.bincount(found[both] * objects + cells[both], minlength=len(groups) * objects)
    shared = shared.view(len(groups), objects)
    union = groups.size[:, None] + torch.bincount(cells[cells >= 0], minlength=objects) - shared
    iou = shared / union.clamp(min=1)
    return iou.amax(dim=1) if objects else iou.new_zeros(len(groups))


# Scores --------------------------------------------------------------------------------------------------------------


def constant(groups: Groups) -> Float[Tensor, " M"]:
    """1 for every instance, as De Brabandere et al. evaluate."""
    return torch.ones_like(groups.centre)


def semantic(groups: Groups) -> Float[Tensor, " M"]:
    """Mean probability of the class over the mask."""
    return groups.mean(groups.probability)


def semantic_x_centre(groups: Groups) -> Float[Tensor, " M"]:
    """Mean probability of the class × how sure the centre is (Panoptic-DeepLab, section 3.3)."""
    return semantic(groups) * groups.centre


def semantic_x_compactness(groups: Groups) -> Float[Tensor, " M"]:
    """Mean probability of the class × how closely the cells lie around their centre."""
    return semantic(groups) * groups.mean((-0.5 * groups.distance**2).exp())


def learned(groups: Groups) -> Float[Tensor, " M"]:
    """Mean probability of the class × the IoU that a head of the method expects (Mask Scoring R-CNN, section 3.2)."""
    assert groups.quality is not None, "a method that is given this rule has the head"
    return semantic(groups) * groups.quality


SCORES: dict[str, Callable[[Groups], Float[Tensor, " M"]]] = {
    rule.__name__: rule for rule in (constant, semantic, semantic_x_centre, semantic_x_compactness, learned)
}
"""A group of cells has no natural score, and the rule alone moves AP; it stands in the table by its name."""


def known_rule(score: str) -> str:
    """The name of a rule as it is.

    Raises:
        ConfigError: there is no such rule.
    """
    if score not in SCORES:
        raise ConfigError(f"score rule {score!r}; expected one of {', '.join(SCORES)}")
    return score


# Instances -----------------------------------------------------------------------------------------------------------


def drawn(groups: Groups, known: SemanticMap, rule: str, smallest: int, point: OperatingPoint) -> Instances:
    """The groups that are instances, by descending score, in photo pixels; no two share a pixel.

    Args:
        groups: of one image.
        known: the semantic map whose foreground they share out.
        rule: of the scores, one of `SCORES`.
        smallest: cells that an instance must have.
        point: how many there may be, and above which score.
    """
    kept, scores = chosen(groups, rule, smallest, point)
    maps = _around(kept, groups.member, known.foreground) * known.outline
    return instances_of(to_photo(maps, known.frame, known.stride), groups.label[kept], scores)


def chosen(
    groups: Groups, rule: str, smallest: int, point: OperatingPoint
) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
    """Which groups are instances, by descending score, and these scores; arguments as of `drawn`."""
    scores = SCORES[rule](groups) * (groups.size >= smallest)
    kept = best(scores, point.max_instances)
    kept = kept[scores[kept] > point.score_threshold]
    return kept, scores[kept]


def _around(
    kept: Int64[Tensor, " K"], member: Int64[Tensor, " P"], foreground: Bool[Tensor, "h w"]
) -> Bool[Tensor, "K h w"]:
    """The cells of each group, and the background that touches them: between the two runs its outline."""
    cells = torch.full(foreground.shape, -1, dtype=torch.long, device=foreground.device)
    cells[foreground] = member
    own = cells == kept[:, None, None]
    touched = F.max_pool2d(own[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0
    return own | (touched & ~foreground)
