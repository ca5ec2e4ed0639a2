"""Which detection finds which truth: COCO's greedy rule, for every threshold and stratum at once.

D detections   G truths   S strata   T IoU thresholds   P meetings   d g rows of a meeting

pycocotools goes through images, classes, strata, thresholds, detections and truths in six loops; here one loop goes
through the places in the ranking, and each step serves all the others at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64

from maskbench.evaluation.matches import Matches
from maskbench.evaluation.overlaps import Meeting, Overlaps
from maskbench.evaluation.strata import Stratum, sizes

THRESHOLDS: Float[np.ndarray, " T"] = np.linspace(0.5, 0.95, 10)
"""COCO's, as pycocotools computes them."""

CHUNK = 1 << 21
"""Meetings are matched in chunks of so many (stratum, threshold, truth) cells a step: some 16 MB."""


def match(found: Overlaps, strata: Mapping[str, Stratum] | None = None) -> Matches:
    """Match detections to truths greedily by score, as COCO does.

    A detection takes the free truth of its image and class that it overlaps most, of the stratum before others; crowds
    are never used up. Of equal overlaps the last truth is taken, as in pycocotools.

    Args:
        found: the overlaps.
        strata: the parts to be scored (default: `sizes`).
    """
    parts = sizes(found) if strata is None else dict(strata)
    counted = np.stack([part.truths & ~found.ignored for part in parts.values()], axis=1)
    blamed = np.stack([part.detections & ~found.excused for part in parts.values()], axis=1)
    taken = assign(found, counted)
    inside = and_none(counted)[taken, np.arange(len(parts))[:, None]]
    hit = inside & ~and_none(found.void)[taken]
    elsewhere = (taken >= 0) & ~inside
    order = np.lexsort((found.rank, found.detections.image, -found.score, found.detections.label))
    return Matches(
        images=found.images,
        classes=found.classes,
        names=found.names,
        strata=tuple(parts),
        image=found.detections.image[order],
        label=found.detections.label[order],
        score=found.score[order],
        rank=found.rank[order],
        right=hit[order],
        wrong=(~hit & ~elsewhere & blamed[:, :, None])[order],
        overlap=_overlap(found, taken[:, 0, 0])[order],
        truth_image=found.truths.image,
        truth_label=found.truths.label,
        counted=counted,
    )


def assign(
    found: Overlaps, counted: Bool[np.ndarray, "G S"], thresholds: Float[np.ndarray, " T"] = THRESHOLDS
) -> Int32[np.ndarray, "D S T"]:
    """The truth that each detection takes by stratum and threshold, −1 where it takes none.

    Args:
        found: the overlaps.
        counted: the strata that each truth belongs to.
        thresholds: the overlaps that are enough.
    """
    taken = np.full((len(found.score), counted.shape[1], len(thresholds)), -1, dtype=np.int32)
    for chunk in _chunks(found.meetings, counted.shape[1] * len(thresholds)):
        _match(chunk, and_none(counted), and_none(found.crowd), thresholds, taken)
    return taken


def _overlap(found: Overlaps, taken: Int32[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """The overlap of each detection with the truth that it takes."""
    overlap = np.zeros(len(taken))
    for meeting in found.meetings:
        row, column = np.nonzero(meeting.truths == taken[meeting.detections][:, None])
        overlap[meeting.detections[row]] = meeting.iou[row, column]
    return overlap


def and_none(flags: Bool[np.ndarray, "G ..."]) -> Bool[np.ndarray, "G+1 ..."]:
    """One row more, of no truth: the place −1, where a detection that takes none points."""
    return np.concatenate([flags, np.zeros((1, *flags.shape[1:]), dtype=bool)])


def _chunks(meetings: Sequence[Meeting], conditions: int) -> Iterator[list[Meeting]]:
    """Meetings of like size together, so that little is padded, and few enough at a time."""
    by_size = sorted(meetings, key=lambda meeting: (len(meeting.truths), len(meeting.detections)), reverse=True)
    while by_size:
        many = max(1, CHUNK // (conditions * len(by_size[0].truths)))
        chunk, by_size = by_size[:many], by_size[many:]
        yield sorted(chunk, key=lambda meeting: len(meeting.detections), reverse=True)


def _match(
    chunk: Sequence[Meeting],
    counted: Bool[np.ndarray, "G S"],
    crowd: Bool[np.ndarray, " G"],
    thresholds: Float[np.ndarray, " T"],
    taken: Int32[np.ndarray, "D S T"],
) -> None:
    """Write into `taken` the truth that each detection of these meetings takes, the longest meeting first."""
    rows, truths, iou = _stacked(chunk)
    preferred = counted[truths].transpose(0, 2, 1)[:, :, None]  # [P S 1 g]
    lasting = crowd[truths]
    enough = np.minimum(thresholds, 1 - 1e-10)[:, None]
    free = np.ones((len(chunk), counted.shape[1], len(thresholds), truths.shape[1]), dtype=bool)
    lengths = np.array([len(meeting.detections) for meeting in chunk])
    for place in range(rows.shape[1]):
        now = slice(int(np.count_nonzero(lengths > place)))
        overlap = iou[now, place, None, None]
        fits = free[now] & (overlap >= enough)
        better = fits & preferred[now]
        pool = np.where(better.any(axis=-1, keepdims=True), better, fits)
        best = np.where(pool, overlap, -1).argmax(axis=-1)
        meeting, stratum, threshold = np.nonzero(pool.any(axis=-1))
        chosen = best[meeting, stratum, threshold]
        taken[rows[meeting, place], stratum, threshold] = truths[meeting, chosen]
        free[meeting, stratum, threshold, chosen] = lasting[meeting, chosen]


def _stacked(
    chunk: Sequence[Meeting],
) -> tuple[Int64[np.ndarray, "P d"], Int64[np.ndarray, "P g"], Float[np.ndarray, "P d g"]]:
    """Rows of detections and truths and their overlaps, padded; no truth is −1, and overlaps nothing.

    Truths run backwards: the largest is looked for from the front, and of equals pycocotools takes the last.
    """
    most = max(len(meeting.detections) for meeting in chunk), max(len(meeting.truths) for meeting in chunk)
    rows, truths = (np.full((len(chunk), side), -1, dtype=np.int64) for side in most)
    iou = np.full((len(chunk), *most), -1.0)
    for index, meeting in enumerate(chunk):
        rows[index, : len(meeting.detections)] = meeting.detections
        truths[index, : len(meeting.truths)] = meeting.truths[::-1]
        iou[index, : len(meeting.detections), : len(meeting.truths)] = meeting.iou[:, ::-1]
    return rows, truths, iou
