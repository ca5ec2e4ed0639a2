"""How well objects are counted and drawn where a threshold decides what is one, as papers on leaves report it.

The measures are those of the CVPPP leaf segmentation challenge (Scharr et al., Machine Vision and Applications 2016;
Minervini et al., Pattern Recognition Letters 2016): the difference in count (DiC) and the symmetric best Dice (SBD).

D detections   G truths   I images   N objects of one side, detections or truths
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matching import THRESHOLDS, and_none, assign
from maskbench.evaluation.overlaps import Overlaps, overlaps
from maskbench.evaluation.results import Result


@dataclass(frozen=True)
class Counts:
    """Means over all images. Where nothing is and nothing was found, the count is exact and SBD is 1.

    Attributes:
        dic: difference in count, predicted − true: below 0 where objects are missed.
        abs_dic: its absolute value, image by image, so that too many here don't make up for too few there.
        exact: the share of images whose count is right.
        sbd: symmetric best Dice: how well each object of one side is covered by the one of the other that fits it
            best, a mean over the objects of an image, from truth to prediction or back, whichever is lower. It is 0
            where only one of the sides has objects.
    """

    dic: float
    abs_dic: float
    exact: float
    sbd: float


@dataclass(frozen=True)
class Counting:
    """Counts of all objects whatever their class, as on leaves, which have one; and by class name, of each class alone.

    A class counts in all images, also in those that don't have it.
    """

    overall: Counts
    per_class: dict[str, Counts]


def counting(
    truth: GroundTruth,
    results: Sequence[Result],
    threshold: float,
    *,
    image_ids: Iterable[int] | None = None,
    max_instances: int | None = None,
) -> Counting:
    """Count the masks that score at least `threshold`.

    Crowds are no objects, and detections that find one at an IoU of 0.5 are left out, as everywhere in the evaluation.

    Args:
        truth: the annotations.
        results: COCO results with masks, possibly none.
        threshold: the score.
        image_ids: the images that count (default: all that `truth` has).
        max_instances: the best detections of an image and class that count (default: as in `overlaps`).

    Raises:
        DataError: a result or an annotation can't be compared; the message names it.
    """
    kept = [result for result in results if result["score"] >= threshold]
    met = overlaps(truth, kept, image_ids=image_ids, max_instances=max_instances, across_classes=True)
    found, there = _counted(met), ~met.ignored
    own = _best_dice(met, found, there, of_one_class=True)
    return Counting(
        overall=_counts(met, (found, there), _best_dice(met, found, there, of_one_class=False)),
        per_class={
            name: _counts(met, (found & (met.detections.label == label), there & (met.truths.label == label)), own)
            for label, name in enumerate(met.names)
        },
    )


def _counted(met: Overlaps) -> Bool[np.ndarray, " D"]:
    """Detections that are right or wrong: neither on a crowd nor excused."""
    taken = assign(met, ~met.ignored[:, None], THRESHOLDS[:1])[:, 0, 0]
    return ~and_none(met.ignored)[taken] & ~(met.excused & (taken < 0))


def _best_dice(
    met: Overlaps, found: Bool[np.ndarray, " D"], there: Bool[np.ndarray, " G"], *, of_one_class: bool
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " G"]]:
    """Each object's Dice with the one of the other side that fits it best, 0 where none overlaps it.

    Dice is 2·IoU / (1 + IoU), so that the overlaps of run lengths tell it and no mask is decoded.

    Args:
        met: overlaps across classes.
        found, there: the detections and truths that count.
        of_one_class: compare those of one class alone.
    """
    of_found, of_there = np.zeros(len(found)), np.zeros(len(there))
    for crossing in met.crossings:
        rows, columns = crossing.detections, crossing.truths
        valid = found[rows][:, None] & there[columns]
        if of_one_class:
            valid &= met.detections.label[rows][:, None] == met.truths.label[columns]
        dice = np.where(valid, 2 * crossing.iou / (1 + crossing.iou), 0.0)
        of_found[rows], of_there[columns] = dice.max(axis=1), dice.max(axis=0)
    return of_found, of_there


def _counts(
    met: Overlaps,
    rows: tuple[Bool[np.ndarray, " D"], Bool[np.ndarray, " G"]],
    best_dice: tuple[Float[np.ndarray, " D"], Float[np.ndarray, " G"]],
) -> Counts:
    """The counts of some detections and truths, given each one's best Dice."""
    images = len(met.images)
    (found, of_found), (there, of_there) = (
        _by_image(objects.image[own], dice[own], images)
        for objects, own, dice in zip((met.detections, met.truths), rows, best_dice, strict=True)
    )
    dic = found - there
    sbd = np.where(found + there == 0, 1.0, np.minimum(of_found, of_there))
    return Counts(
        dic=float(dic.mean()),
        abs_dic=float(np.abs(dic).mean()),
        exact=float((dic == 0).mean()),
        sbd=float(sbd.mean()),
    )


def _by_image(
    image: Int64[np.ndarray, " N"], dice: Float[np.ndarray, " N"], images: int
) -> tuple[Int64[np.ndarray, " I"], Float[np.ndarray, " I"]]:
    """How many objects each image has, and the mean of their Dice, 0 where it has none."""
    number = np.bincount(image, minlength=images)
    return number, np.bincount(image, dice, minlength=images) / np.maximum(number, 1)
