"""Whether scores are what they say: of the detections of score 0.7, are seven in ten right? (Guo et al., ICML 2017.)

D detections   b bins
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from maskbench.evaluation.matches import Matches

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Detections by score, in bins of equal width from 0 to 1.

    Attributes:
        counts: detections of each bin.
        score: their mean score, NaN where there are none.
        right: the share of them that find an object (IoU 0.5, each object once), likewise.
        error: the expected calibration error: how far the two are apart, on average over detections; NaN without any.
    """

    counts: Int64[np.ndarray, " b"]
    score: Float[np.ndarray, " b"]
    right: Float[np.ndarray, " b"]
    error: float


def calibrate(matches: Matches) -> Calibration:
    """Calibration of all detections that count, whatever their class; scores outside 0 to 1 join the outer bins."""
    right = matches.right[:, 0, 0]
    listed = right | matches.wrong[:, 0, 0]
    score, right = matches.score[listed], right[listed]
    place = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    counts, scores, hits = (np.bincount(place, weights, minlength=BINS) for weights in (None, score, right))
    with np.errstate(invalid="ignore"):
        apart = np.abs(scores - hits).sum() / counts.sum()
        return Calibration(counts.astype(np.int64), scores / counts, hits / counts, float(apart))
