"""COCO's average precision and recall of instances, equal to pycocotools' numbers (Lin et al., ECCV 2014).

Arrays alone, so that a file of results is scored without the memory that torchmetrics takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskbench.evaluation.errors import Errors, errors
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import Matches
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import IouType, Overlaps, overlaps
from maskbench.evaluation.precision_recall import Curves, curves, mean
from maskbench.evaluation.results import Result
from maskbench.evaluation.strata import EXPLAINED, Stratum

_AP50, _AP75 = 0, 5
"""Rows of IoU 0.50 and 0.75 among 0.50:0.05:0.95."""


@dataclass(frozen=True)
class Scores:
    """COCO's numbers, all in [0, 1], or −1 where the truth has nothing to find.

    Attributes:
        summary: AP (over IoU 0.50:0.05:0.95), AP50, AP75, APs, APm, APl (area below 32², to 96², above), AR1, AR10 and
            AR<max> (that many detections an image and class), ARs, ARm, ARl; of federated annotations LVIS's: APr, APc,
            APf (rare, common and frequent classes) and AR<max> alone.
        per_class: AP by class name.
        matches: what the numbers were computed from.
        errors: why AP is lost, where that was asked for.
        strata: AP and truths by what `strata.EXPLAINED` asks of the objects, likewise.
    """

    summary: dict[str, float]
    per_class: dict[str, float]
    matches: Matches = field(compare=False, repr=False)
    errors: Errors | None = None
    strata: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def score(
    annotations: str | Path | GroundTruth,
    results: Sequence[Result],
    *,
    iou_type: IouType,
    max_instances: int | None = None,
    image_ids: Iterable[int] | None = None,
    why: bool = False,
) -> Scores:
    """Score COCO results against an annotation file.

    Masks take their area from `bbox` if the record has one, as pycocotools does. Boxes are `bbox`, else `box`, else
    the mask's. Summary numbers beside AR1 and AR10 admit `max_instances` detections an image and class (pycocotools
    prints AP at 100 alone, whatever the limit). Results of equal score keep their order.

    Args:
        annotations: the json, or the same already read.
        results: COCO results, possibly none.
        iou_type: `segm`, `bbox` or `boundary`.
        max_instances: the best detections of an image and class that count (default: COCO's 100; of federated
            annotations the best of an image over all classes, LVIS's 300).
        image_ids: the images that count (default: all of the json).
        why: find out why AP is lost, too, and where; of masks alone.

    Raises:
        DataError: a result or an annotation can't be scored; the message names it.
        ValueError: `why` is asked of something else than masks.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth(annotations)
    if why and iou_type != "segm":
        raise ValueError(f"errors and strata are those of masks, but iou_type is {iou_type}")
    limit = truth.max_instances if max_instances is None else max_instances
    met = overlaps(truth, results, iou_type=iou_type, image_ids=image_ids, max_instances=limit, across_classes=why)
    matches = match(met)
    if truth.federated:
        found = curves(matches, [limit])
        summary = _precisions(found) | _by_frequency(found, truth) | _recalls(found, {limit: -1})
    else:
        limits = sorted({1, min(10, limit), limit})
        found = curves(matches, limits)
        summary = _precisions(found) | _recalls(found, {at: limits.index(min(at, limit)) for at in (1, 10, limit)})
    return Scores(
        summary=summary,
        per_class={name: mean(found.precision[:, :, k, 0, -1]) for k, name in enumerate(met.names)},
        matches=matches,
        errors=errors(met) if why else None,
        strata={name: _by(met, divide(met)) for name, divide in EXPLAINED.items()} if why else {},
    )


def as_metrics(scores: Mapping[IouType, Scores]) -> dict[str, dict[str, Any]]:
    """Summaries by what was compared; `per_class`: by what was compared, AP by class name; `errors`, `strata`
    likewise."""
    summaries: dict[str, dict[str, Any]] = {iou_type: found.summary for iou_type, found in scores.items()}
    why: dict[str, Any] = {iou_type: asdict(found.errors) for iou_type, found in scores.items() if found.errors}
    where: dict[str, Any] = {iou_type: found.strata for iou_type, found in scores.items() if found.strata}
    per_class: dict[str, Any] = {iou_type: found.per_class for iou_type, found in scores.items()}
    return {**summaries, "per_class": per_class, **({"errors": why, "strata": where} if why else {})}


def _by(met: Overlaps, strata: Mapping[str, Stratum]) -> dict[str, dict[str, float]]:
    """AP of each stratum (−1 where it has no truths), and how many truths it has."""
    matches = match(met, strata)
    precision = curves(matches, [int(matches.rank.max(initial=0)) + 1]).precision
    counts = matches.counted.sum(axis=0).tolist()
    return {name: {"AP": mean(precision[..., place, -1]), "truths": counts[place]} for place, name in enumerate(strata)}


def _precisions(found: Curves) -> dict[str, float]:
    """AP at the largest limit: over all thresholds, at two of them, and by size."""
    precision = found.precision[..., -1]
    return {
        "AP": mean(precision[..., 0]),
        "AP50": mean(precision[_AP50, ..., 0]),
        "AP75": mean(precision[_AP75, ..., 0]),
        **{f"AP{size}": mean(precision[..., area]) for area, size in enumerate("sml", start=1)},
    }


def _by_frequency(found: Curves, truth: GroundTruth) -> dict[str, float]:
    """AP of LVIS's rare, common and frequent classes, of what there is."""
    words = list(truth.frequency.values())
    return {
        f"AP{word}": mean(found.precision[:, :, [own == word for own in words], 0, -1])
        for word in "rcf"
        if word in words
    }


def _recalls(found: Curves, limits: Mapping[int, int]) -> dict[str, float]:
    """AR by limit (given with its place), and by size at the largest."""
    return {
        **{f"AR{limit}": mean(found.recall[..., 0, index]) for limit, index in limits.items()},
        **{f"AR{size}": mean(found.recall[..., area, -1]) for area, size in enumerate("sml", start=1)},
    }
