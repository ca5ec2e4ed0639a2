"""Bottom-up: from grouped cells of a map to instances of the photo, and from true instances to cells.

N objects of an image   C classes   h w cells of a map   P foreground cells   M groups   K instances
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.ops.masks import instances_of, label_map, shrink, to_photo
from maskbench.ops.suppress import best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

# The truth as cells --------------------------------------------------------------------------------------------------


def true_cells(target: Instances, stride: int) -> Int64[Tensor, "h w"]:
    """The object of each cell of the network input at 1/`stride`, −1 where there is none."""
    return label_map(shrink(target.masks.dense().to(target.boxes.device), stride))


def true_classes(cells: Int64[Tensor, "h w"], target: Instances, background: int) -> Int64[Tensor, "h w"]:
    """The class of each cell's object."""
    return torch.cat([target.labels, target.labels.new_tensor([background])])[cells]


def certain(classes: Int64[Tensor, "h w"], count: int) -> Float[Tensor, "C h w"]:
    """The semantic map of somebody who knows: probability 1 for the class of each cell."""
    return F.one_hot(classes, count).permute(2, 0, 1).float()


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
    """What each cell is taken for.

    Args:
        probabilities: of the classes, background last.
        frame: beyond whose photo a map is padding and never foreground.
        stride: of the map.
    """

    probabilities: Float[Tensor, "C h w"]
    frame: Frame
    stride: int

    @property
    def label(self) -> Int64[Tensor, "h w"]:
        return self.probabilities.argmax(dim=0)

    @property
    def inside(self) -> Bool[Tensor, "h w"]:
        """The cells that the photo covers; beyond them is padding."""
        height, width = self.probabilities.shape[1:]
        device = self.probabilities.device
        rows = torch.arange(height, device=device) * self.stride < self.frame.resized[0]
        columns = torch.arange(width, device=device) * self.stride < self.frame.resized[1]
        return rows[:, None] & columns[None]

    @property
    def foreground(self) -> Bool[Tensor, "h w"]:
        """The cells of the photo that are of a class."""
        return (self.label < len(self.probabilities) - 1) & self.inside

    def areas(self, classes: Int64[Tensor, "h w"]) -> Int64[Tensor, "3 C"]:
        """Cells of each class: those that are rightly taken for it, those that are of it, those that are taken for it.

        Args:
            classes: what the cells are.
        """
        count, inside = len(self.probabilities), self.inside
        true, taken = classes[inside], self.label[inside]
        cells = (true[true == taken], true, taken)
        return torch.stack([torch.bincount(some, minlength=count) for some in cells])

    @property
    def outline(self) -> Float[Tensor, "h w"]:
        """The likeliest class against background, above one half where the class wins: so outlines interpolate."""
        *_, background = self.probabilities
        likeliest = self.probabilities[:-1].amax(dim=0)
        return likeliest / (likeliest + background)


def semantic_areas(probabilities: Float[Tensor, "B C h w"], batch: Batch, stride: int) -> list[Int64[Tensor, "3 C"]]:
    """`SemanticMap.areas` of each image against the true objects."""
    background = probabilities.shape[1] - 1
    return [
        SemanticMap(own, frame, stride).areas(true_classes(true_cells(target, stride), target, background))
        for own, frame, target in zip(probabilities, batch.frames, batch.targets, strict=True)
    ]


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

    @property
    def size(self) -> Int64[Tensor, " M"]:
        """Cells of each."""
        return torch.bincount(self.member[self.member >= 0], minlength=len(self))

    def mean(self, values: Float[Tensor, "P ..."]) -> Float[Tensor, "M ..."]:
        """The mean over the cells of each group."""
        own = self.member >= 0
        total = values.new_zeros((len(self), *values.shape[1:])).index_add(0, self.member[own], values[own])
        return total / self.size.clamp(min=1).view(-1, *[1] * (values.ndim - 1))

    def of_quality(self, quality: Float[Tensor, " M"]) -> Groups:
        return replace(self, quality=quality)


def majority(member: Int64[Tensor, " P"], labels: Int64[Tensor, " P"], count: int, classes: int) -> Int64[Tensor, " M"]:
    """The class that most cells of each group are of (Panoptic-DeepLab, section 3.3); of equals the first."""
    own = member >= 0
    votes = torch.bincount(member[own] * classes + labels[own], minlength=count * classes)
    return votes.view(count, classes).argmax(dim=1)


def group_iou(groups: Groups, known: SemanticMap, cells: Int64[Tensor, "h w"]) -> Float[Tensor, " M"]:
    """Of each group with the object that it overlaps most, whatever their classes, in cells of the photo."""
    inside = known.inside
    objects = int(cells.amax()) + 1 if cells.numel() else 0
    found = torch.full_like(cells, -1)
    found[known.foreground] = groups.member
    found, true = found[inside], cells[inside]
    both = (found >= 0) & (true >= 0)
    shared = torch.bincount(found[both] * objects + true[both], minlength=len(groups) * objects)
    shared = shared.view(len(groups), objects)
    union = groups.size[:, None] + torch.bincount(true[true >= 0], minlength=objects) - shared
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
    """The IoU that a head of the method expects of the mask."""
    assert groups.quality is not None, "a method that is given this rule has the head"
    return groups.quality


SCORES: dict[str, Callable[[Groups], Float[Tensor, " M"]]] = {
    rule.__name__: rule for rule in (constant, semantic, semantic_x_centre, semantic_x_compactness, learned)
}
"""A group of cells has no natural score, and the rule alone moves AP; it stands in the table by its name."""


def known_rule(score: str, *, learns: bool = False) -> str:
    """The name of a rule as it is.

    Args:
        score: the name.
        learns: whether the method has a head that learns how good a mask is (`nn.quality`).

    Raises:
        ConfigError: there is no such rule, or not for this method.
    """
    rules = [rule for rule in SCORES if learns or rule != learned.__name__]
    if score not in rules:
        raise ConfigError(f"score rule {score!r}; expected one of {', '.join(rules)}")
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
    scores = SCORES[rule](groups) * (groups.size >= smallest)
    kept = best(scores, point.max_instances)
    kept = kept[scores[kept] > point.score_threshold]
    maps = _around(kept, groups.member, known.foreground) * known.outline
    return instances_of(to_photo(maps, known.frame, known.stride), groups.label[kept], scores[kept])


def _around(
    kept: Int64[Tensor, " K"], member: Int64[Tensor, " P"], foreground: Bool[Tensor, "h w"]
) -> Bool[Tensor, "K h w"]:
    """The cells of each group, and the background that touches them: between the two runs its outline."""
    cells = torch.full(foreground.shape, -1, dtype=torch.long, device=foreground.device)
    cells[foreground] = member
    own = cells == kept[:, None, None]
    touched = F.max_pool2d(own[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0
    return own | (touched & ~foreground)
