"""What a method is worth where it is put to use: one score threshold, and no ranking.

AP pays for every further guess that is ranked below the good ones. Whoever counts objects, or acts on each of them,
keeps what scores enough and has to live with all of it.

D detections   T IoU thresholds   K classes
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from maskbench.evaluation.matches import Matches
from maskbench.evaluation.matching import THRESHOLDS

IOUS = tuple(f"{threshold:.2f}" for threshold in THRESHOLDS)


@dataclass(frozen=True)
class Tally:
    """Right and wrong among the detections of at least a score: in [0, 1], or −1 where there is nothing to find.

    Detections of all images and classes are counted together, but for PQ.

    Attributes:
        threshold: the score.
        detections, truths: how many are counted.
        precision, recall, f1: at an IoU of 0.5.
        accuracy: TP / (TP + FP + FN) by IoU, as cells and nuclei are scored (Caicedo et al., Nature Methods 2019).
        mean_accuracy: over these IoUs.
        pq, sq, rq: panoptic quality, the product of segmentation and recognition quality, at an IoU of 0.5 as a mean
            over the classes that are there or were found (Kirillov et al., CVPR 2019, section 4.2); objects may overlap
            here, so that the best detection of an object finds it.
    """

    threshold: float
    detections: int
    truths: int
    precision: float
    recall: float
    f1: float
    accuracy: dict[str, float]
    mean_accuracy: float
    pq: float
    sq: float
    rq: float


def tally(matches: Matches, threshold: float) -> Tally:
    """Count what scores at least `threshold`."""
    kept = matches.score >= threshold
    right, wrong = (flags[:, 0] & kept[:, None] for flags in (matches.right, matches.wrong))
    true_positives, false_positives = (flags.sum(axis=0) for flags in (right, wrong))
    truths = int(matches.counted[:, 0].sum())
    accuracy = true_positives / np.maximum(truths + false_positives, 1) if truths else np.full(len(IOUS), -1.0)
    hits, found = int(true_positives[0]), int(true_positives[0] + false_positives[0])
    return Tally(
        threshold=threshold,
        detections=found,
        truths=truths,
        precision=_share(hits, found, truths),
        recall=_share(hits, truths, truths),
        f1=_share(2 * hits, found + truths, truths),
        accuracy=dict(zip(IOUS, accuracy.tolist(), strict=True)),
        mean_accuracy=float(accuracy.mean()),
        **_panoptic(matches, right[:, 0], wrong[:, 0]),
    )


def best_threshold(matches: Matches) -> float | None:
    """The score from which on F1 at an IoU of 0.5 is best, halfway to the first that is left out; 0 where none is.

    What scores less takes no object away from what scores more, so that one matching serves every threshold.

    Returns:
        None where nothing is found: no score is better than another.
    """
    right, wrong = (flags[:, 0, 0] for flags in (matches.right, matches.wrong))
    listed = right | wrong
    order = np.argsort(-matches.score[listed], kind="stable")
    score, hits = matches.score[listed][order], right[listed][order].cumsum()
    if not len(score) or not hits[-1]:
        return None
    f1 = 2 * hits / (np.arange(len(score)) + 1 + matches.counted[:, 0].sum())
    last = np.append(score[1:] < score[:-1], True)  # equal scores are kept or left out together
    best = int(np.where(last, f1, -1).argmax())
    return 0.0 if best == len(score) - 1 else float(score[best] + score[best + 1]) / 2


def f1_by_image(matches: Matches, threshold: float) -> dict[int, float]:
    """F1 at an IoU of 0.5 of what scores at least `threshold`, by image id, but where nothing is there or found."""
    kept, images = matches.score >= threshold, len(matches.images)
    right, wrong = (
        np.bincount(matches.image[flags[:, 0, 0] & kept], minlength=images) for flags in (matches.right, matches.wrong)
    )
    both = right + wrong + np.bincount(matches.truth_image[matches.counted[:, 0]], minlength=images)
    return {matches.images[place]: float(2 * right[place] / both[place]) for place in np.flatnonzero(both).tolist()}


def _share(part: int, whole: int, truths: int) -> float:
    return part / max(whole, 1) if truths else -1.0


def _panoptic(matches: Matches, right: Bool[np.ndarray, " D"], wrong: Bool[np.ndarray, " D"]) -> dict[str, float]:
    classes = len(matches.classes)
    true_positives = np.bincount(matches.label[right], minlength=classes)
    false_positives = np.bincount(matches.label[wrong], minlength=classes)
    truths = np.bincount(matches.truth_label[matches.counted[:, 0]], minlength=classes)
    if not truths.any():
        return dict.fromkeys(("pq", "sq", "rq"), -1.0)
    overlap = np.bincount(matches.label[right], matches.overlap[right], minlength=classes)
    # TP + FP / 2 + FN / 2, in which TP + FN are the truths
    weight = (true_positives + false_positives + truths) / 2
    there = weight > 0
    recognition = true_positives[there] / weight[there]
    segmentation = overlap[there] / np.maximum(true_positives[there], 1)
    qualities = {"pq": recognition * segmentation, "sq": segmentation, "rq": recognition}
    return {name: float(values.mean()) for name, values in qualities.items()}
