"""Curves of precision over recall, and the averages that are read from them (Lin et al., ECCV 2014; as pycocotools).

D detections of a class, best first   T IoU thresholds   R recall levels   K classes   S strata   M limits
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from maskbench.evaluation.matches import Matches

RECALLS: Float[np.ndarray, " R"] = np.linspace(0.0, 1.0, 101)
"""The recalls at which precision is read."""


@dataclass(frozen=True)
class Curves:
    """Precision at `RECALLS`, and the recall of all detections: −1 where there is nothing to find."""

    precision: Float[np.ndarray, "T R K S M"]
    recall: Float[np.ndarray, "T K S M"]


def curves(matches: Matches, limits: Sequence[int]) -> Curves:
    """The curves of each class, stratum and limit of detections an image and class."""
    thresholds = matches.right.shape[2]
    shape = (len(matches.classes), len(matches.strata), len(limits))
    precision = np.full((thresholds, len(RECALLS), *shape), -1.0)
    recall = np.full((thresholds, *shape), -1.0)
    totals = np.zeros(shape[:2], dtype=np.int64)
    np.add.at(totals, matches.truth_label, matches.counted)
    for label, stratum in zip(*np.nonzero(totals), strict=True):
        rows = matches.of_class(int(label))
        for index, limit in enumerate(limits):
            kept = matches.rank[rows] < limit
            right, wrong = (part[rows, stratum][kept].T for part in (matches.right, matches.wrong))
            here = label, stratum, index
            precision[:, :, *here], recall[:, *here] = curve(right, wrong, int(totals[label, stratum]))
    return Curves(precision, recall)


def mean_curve(matches: Matches) -> Float[np.ndarray, "T R"]:
    """Precision at `RECALLS` by IoU threshold, the mean over the classes that there are; −1 where there are none."""
    precision = curves(matches, [int(matches.rank.max(initial=0)) + 1]).precision[:, :, :, 0, 0]
    defined = precision > -1
    return np.where(
        defined.any(axis=2), precision.sum(axis=2, where=defined) / np.maximum(defined.sum(axis=2), 1), -1.0
    )


def mean(values: Float[np.ndarray, "..."]) -> float:
    """Mean of what is defined, −1 if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def curve(
    right: Bool[np.ndarray, "T D"], wrong: Bool[np.ndarray, "T D"], total: int
) -> tuple[Float[np.ndarray, "T R"], Float[np.ndarray, " T"]]:
    """Precision at each recall level (the best at that recall or a larger one; 0 beyond), and the last recall."""
    read = np.zeros((len(right), len(RECALLS)))
    if not right.shape[1]:
        return read, np.zeros(len(right))
    hits, misses = right.cumsum(axis=1), wrong.cumsum(axis=1)
    recall = hits / total
    precision = hits / np.maximum(hits + misses, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    for row, (levels, reached) in enumerate(zip(best, recall, strict=True)):
        places = np.searchsorted(reached, RECALLS, side="left")
        within = places < len(levels)
        read[row, within] = levels[places[within]]
    return read, recall[:, -1]
