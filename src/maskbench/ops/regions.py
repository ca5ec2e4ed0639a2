"""Regions of a two-stage method: which of them to train on, what they should say, what is detected in them.

N objects of an image   R regions   P positive regions   C classes   K boxes a region: one a class, or one for all
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, box_iou

from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Matcher, Sampler
from maskbench.ops.masks import SLICE_PIXELS, crop_and_resize, crop_softly, maskness, on_whole_pixels, paste
from maskbench.ops.suppress import above, best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

RECALL_AT = (50, 100, 300, 1000)
"""Proposals of an image among which a true box is looked for."""


class Regions(NamedTuple):
    """The regions of a batch that are trained on, image by image, positives first."""

    boxes: list[Float[Tensor, "_r 4"]]
    labels: list[Int64[Tensor, " _r"]]
    """C for background."""
    matched: list[Int64[Tensor, " _p"]]
    """Row of the target that each positive learns."""
    truth: list[Bool[Tensor, " _r"]]
    """Whether a region is a true box that was laid among the proposals."""

    def positives(self) -> Regions:
        """The regions that hold an object."""
        counts = [len(match) for match in self.matched]
        cut = [[rows[:count] for rows, count in zip(field, counts, strict=True)] for field in self]
        return Regions(*cut)

    def all_labels(self) -> Int64[Tensor, " R"]:
        """Labels of all images, under each other."""
        return torch.cat(self.labels)


def sample(
    proposals: Sequence[Float[Tensor, "_r 4"]],
    targets: Sequence[Instances],
    matcher: Matcher,
    sampler: Sampler,
    background: int,
    *,
    with_truth: bool = True,
) -> Regions:
    """Which proposals to train on.

    Args:
        proposals: in network pixels.
        targets: true objects.
        matcher: which object a proposal learns.
        sampler: how many are taken.
        background: the label C.
        with_truth: whether the true boxes are laid among the proposals.
    """
    boxes, labels, matched, truth = [], [], [], []
    for proposed, target in zip(proposals, targets, strict=True):
        given = target.boxes if with_truth else target.boxes[:0]
        candidates = torch.cat([given, proposed])
        matches = matcher(candidates, target.boxes)
        positive, negative = sampler(matches)
        rows = torch.cat([positive, negative])
        boxes.append(candidates[rows])
        labels.append(torch.cat([target.labels[matches[positive]], torch.full_like(negative, background)]))
        matched.append(matches[positive])
        truth.append(rows < len(given))
    return Regions(boxes, labels, matched, truth)


def without_truth(boxes: Sequence[Float[Tensor, "_r 4"]], regions: Regions) -> list[Float[Tensor, "_r 4"]]:
    """`boxes` that regions became, but for those that were true boxes."""
    return [box[~truth] for box, truth in zip(boxes, regions.truth, strict=True)]


def proposal_recall(
    proposals: Sequence[Float[Tensor, "_r 4"]],
    targets: Sequence[Instances],
    most: int,
    counts: Sequence[int] = RECALL_AT,
) -> list[dict[str, tuple[int, int]]]:
    """How many true boxes of each image overlap one of the best proposals by half or more: what a box head starts from.

    Args:
        proposals: in network pixels, the best first.
        targets: true objects.
        most: proposals that an image may have.
        counts: how many of the best; those beyond `most` are as many as that.
    """
    limits = sorted({min(count, most) for count in counts})
    found = []
    for boxes, target in zip(proposals, targets, strict=True):
        near = box_iou(target.boxes, boxes) >= 0.5
        hits = {limit: int(near[:, :limit].any(dim=1).sum()) for limit in limits}
        found.append({f"a box among the best {limit} proposals": (hit, len(target)) for limit, hit in hits.items()})
    return found


def box_losses(
    logits: Float[Tensor, "R C"],
    deltas: Float[Tensor, "R K 4"],
    regions: Regions,
    targets: Sequence[Instances],
    weights: box_ops.DeltaWeights,
    beta: float = 0.0,
) -> dict[str, Float[Tensor, ""]]:
    """Cross-entropy and smooth L1 loss (L1 if `beta` is 0) of the positives' boxes, both divided by all regions."""
    logits, deltas, labels = logits.float(), deltas.float(), torch.cat(regions.labels)
    positive = (labels < logits.shape[1] - 1).nonzero()[:, 0]
    truth = torch.cat([target.boxes[match] for target, match in zip(targets, regions.matched, strict=True)])
    wanted = box_ops.encode(torch.cat(regions.boxes)[positive], truth, weights)
    column = labels[positive] if deltas.shape[1] > 1 else 0
    count = max(1, len(labels))
    return {
        "class": F.cross_entropy(logits, labels, reduction="sum") / count,
        "box": F.smooth_l1_loss(deltas[positive, column], wanted, beta=beta, reduction="sum") / count,
    }


def mask_targets(
    positives: Regions, targets: Sequence[Instances], size: int, *, soft: bool = False
) -> Float[Tensor, "P m m"]:
    """The true mask of each positive inside its region, as `size` × `size` cells: 0 or 1, or (`soft`) their shares."""
    crop = crop_softly if soft else crop_and_resize
    cropped = [
        crop(target.masks.dense(), boxes, size, match).float()
        for target, match, boxes in zip(targets, positives.matched, positives.boxes, strict=True)
    ]
    return torch.cat(cropped)


class Detected(NamedTuple):
    """What was found in an image, in network pixels, scores descending."""

    boxes: Float[Tensor, "_k 4"]
    labels: Int64[Tensor, " _k"]
    scores: Float[Tensor, " _k"]


def detect(
    boxes: Float[Tensor, "R K 4"],
    probabilities: Float[Tensor, "R C"],
    counts: Sequence[int],
    frames: Sequence[Frame],
    point: OperatingPoint,
    nms: float,
    smallest: float = 0.0,
) -> list[Detected]:
    """Boxes and class probabilities of regions → what is found: a threshold, NMS for each class, the best.

    Args:
        boxes: of the regions of all images, in network pixels, one for each class or one for all.
        probabilities: the last class is background.
        counts: regions of each image.
        frames: to whose network pixels the boxes are cut.
        point: threshold, candidates and instances.
        nms: overlap at which the lower-scored box of a class goes.
        smallest: pixels that a box must have in width and height; what lies outside its image has none.
    """
    images = zip(boxes.split(counts), probabilities[:, :-1].split(counts), frames, strict=True)
    return [_detect(*image, point, nms, smallest) for image in images]


def _detect(
    boxes: Float[Tensor, "R K 4"],
    probabilities: Float[Tensor, "R C"],
    frame: Frame,
    point: OperatingPoint,
    nms: float,
    smallest: float,
) -> Detected:
    row, label = above(probabilities, point.score_threshold).unbind(dim=1)
    top = best(probabilities[row, label], point.candidates)
    row, label = row[top], label[top]
    chosen = box_ops.clip(boxes[row, label if boxes.shape[1] > 1 else 0], frame.resized)
    scores = probabilities[row, label]
    extent = chosen[:, 2:] - chosen[:, :2]
    large = ((extent > 0) & (extent >= smallest)).all(dim=1)  # of nothing there is no mask
    chosen, label, scores = chosen[large], label[large], scores[large]
    kept = batched_nms(chosen, scores, label, nms)[: point.max_instances]
    return Detected(chosen[kept], label[kept], scores[kept])


def in_photo(
    masks: Float[Tensor, "R m m"], found: Sequence[Detected], frames: Sequence[Frame], *, whole_pixels: bool = False
) -> list[Instances]:
    """Detections and the masks inside their boxes (probabilities) → instances in photo pixels.

    Args:
        masks: of all images, in the order of `found`.
        found: in each image.
        frames: of the images.
        whole_pixels: whether boxes are cut to whole pixels for their masks, as torchvision does.
    """
    parts = masks.split([len(image.labels) for image in found])
    images = zip(parts, found, frames, strict=True)
    return [_in_photo(part, *image, frame, whole_pixels=whole_pixels) for part, image, frame in images]


def _in_photo(
    maps: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, frame: Frame, *, whole_pixels: bool = False
) -> Instances:
    boxes = box_ops.to_photo(boxes, frame)
    drawn = on_whole_pixels(maps, boxes) if whole_pixels else (maps, boxes)
    return Instances(paste(*drawn, frame.photo), boxes, labels, scores)


def true_boxes(targets: Sequence[Instances]) -> list[Detected]:
    """The truth as if it had been detected."""
    return [Detected(target.boxes, target.labels, target.scores) for target in targets]


def in_true_boxes(
    masks: Float[Tensor, "R m m"], targets: Sequence[Instances], frames: Sequence[Frame], *, whole_pixels: bool = False
) -> list[Instances]:
    """`in_photo` of masks inside `true_boxes`, as sure as their masks are: who is sure of all alike has no AP."""
    scores = maskness(masks).split([len(target) for target in targets])
    found = [image._replace(scores=own) for image, own in zip(true_boxes(targets), scores, strict=True)]
    return in_photo(masks, found, frames, whole_pixels=whole_pixels)


def redrawn(batch: Batch, size: int) -> list[Instances]:
    """The truth cropped to its own boxes as `size` × `size` cells, and pasted into the photo."""
    return [_redrawn(target, frame, size) for target, frame in zip(batch.targets, batch.frames, strict=True)]


def _redrawn(target: Instances, frame: Frame, size: int) -> Instances:
    # encoded masks of a large photo don't fit dense all at once
    step = max(1, SLICE_PIXELS // max(1, target.masks.size[0] * target.masks.size[1]))
    maps = [target.boxes.new_zeros((0, size, size))]
    for start in range(0, len(target), step):
        part = target[start : start + step]
        maps.append(crop_and_resize(part.masks.dense().to(part.boxes.device), part.boxes, size).float())
    return _in_photo(torch.cat(maps), target.boxes, target.labels, target.scores, frame)
