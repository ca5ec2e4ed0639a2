"""How sure an AP is: what it would have been on other photographs of the same kind (Efron & Tibshirani, 1993).

B draws   I images   D detections of a class   T IoU thresholds   N runs

A draw takes as many images as there are, with replacement. Nothing is matched again: an image that is drawn twice has
its detections and truths count twice, which moves the curve as two copies of it would (but for equal scores within an
image, whose order is anybody's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from maskbench.evaluation.matches import Matches
from maskbench.evaluation.precision_recall import RECALLS

CELLS = 1 << 21
"""Draws are made in chunks of so many (draw, detection) cells: 16 MB a table."""


def draw(images: int, draws: int = 1000, seed: int = 0) -> Int64[np.ndarray, "B I"]:
    """How often each image is in each draw; the same for every run, so that runs can be compared draw by draw."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)


def drawn_ap(matches: Matches, weights: Int64[np.ndarray, "B I"], stratum: int = 0) -> Float[np.ndarray, "B T"]:
    """AP of each draw by IoU threshold: the mean over the classes that the draw has, −1 where it has no object at all.

    With every weight 1 it is the AP that `precision_recall.curves` has.

    Args:
        matches: of a run.
        weights: how often each image counts.
        stratum: its place in `matches.strata`.
    """
    totals = np.zeros((len(weights), matches.right.shape[2]))
    classes = np.zeros((len(weights), 1))
    for label in np.unique(matches.truth_label):
        truths = matches.truth_image[matches.counted[:, stratum] & (matches.truth_label == label)]
        wanted = weights @ np.bincount(truths, minlength=weights.shape[1])
        rows = matches.of_class(int(label))
        ranking = _Ranking.of(matches.image[rows], matches.right[rows, stratum], matches.wrong[rows, stratum])
        step = max(1, CELLS // max(len(ranking.image), int(wanted.max(initial=0)) + 1))
        for begin in range(0, len(weights), step):
            part = slice(begin, begin + step)
            totals[part] += ranking.ap(weights[part], wanted[part])
        classes[:, 0] += wanted > 0
    return np.where(classes > 0, totals / np.maximum(classes, 1), -1.0)


def whole_ap(matches: Matches) -> float:
    """AP of every image once, as draws have it."""
    return float(drawn_ap(matches, np.ones((1, len(matches.images)), dtype=np.int64)).mean())


def over_seeds(
    values: Float[np.ndarray, "N B"], estimates: Float[np.ndarray, " N"], seed: int = 0
) -> Float[np.ndarray, " B"]:
    """Draws of a method's mean AP over seeds and images at once.

    Images are drawn anew, seeds are not: of the three that people can afford there are ten different draws, which hold
    the truth in 80 of 100 cases and not in 95. A mean of N seeds varies about the method's as Student's t has it with
    N − 1 degrees of freedom, and each draw moves by as much. One seed alone says nothing of others.

    Args:
        values: AP of each run in each draw; the runs share the draws of images.
        estimates: AP of each run on all images.
    """
    seeds = len(values)
    drawn = values.mean(axis=0)
    if seeds == 1:
        return drawn
    moves = np.random.default_rng(seed).standard_t(seeds - 1, values.shape[1])
    return drawn + estimates.std(ddof=1) / np.sqrt(seeds) * moves


def interval(estimate: float, draws: Float[np.ndarray, " B"], share: float = 0.95) -> tuple[float, float]:
    """The basic bootstrap interval: as far from the estimate as draws lie from it, on the other side.

    AP of few photographs is too high where classes are rare (a precision is the best at its recall or beyond it), and
    draws of draws are so twice; plain percentiles would move the interval away from the truth by as much again
    (`experiments/intervals` shows the coverage of both).
    """
    low, high = np.quantile(draws, [(1 - share) / 2, (1 + share) / 2])
    return float(2 * estimate - high), float(2 * estimate - low)


def chance(estimate: float, draws: Float[np.ndarray, " B"]) -> float:
    """The two-sided p-value of a difference: how often draws lie as far from it as it lies from zero."""
    beyond = int(np.count_nonzero(np.abs(draws - estimate) >= abs(estimate)))
    return (beyond + 1) / (len(draws) + 1)


def holm(chances: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm, 1979): each may be read as if it stood alone."""
    corrected = [0.0] * len(chances)
    worst = 0.0
    for place, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        worst = max(worst, min(1.0, (len(chances) - place) * chances[index]))
        corrected[index] = worst
    return corrected


@dataclass(frozen=True)
class _Ranking:
    """The detections of a class, best first: which find something, and which are no mistake at every threshold."""

    image: Int64[np.ndarray, " D"]
    right: Bool[np.ndarray, "D T"]
    listed: Bool[np.ndarray, "D T"]

    @classmethod
    def of(cls, image: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> _Ranking:
        listed = right | wrong
        seen = listed.any(axis=1)
        return cls(image[seen], right[seen], listed[seen])

    def ap(self, weights: Int64[np.ndarray, "b I"], wanted: Int64[np.ndarray, " b"]) -> Float[np.ndarray, "b T"]:
        """AP of draws with so many truths: 0 where there are none.

        Precision falls from each right detection to the next, so that the curve is read at right ones alone.
        """
        counts = weights[:, self.image]
        always = self.listed.all(axis=1)
        before = (counts * always).cumsum(axis=1)
        levels = np.searchsorted(
            RECALLS, np.arange(wanted.max(initial=0) + 1) / np.maximum(wanted, 1)[:, None], "right"
        )
        ap = np.zeros((len(weights), self.right.shape[1]))
        for threshold in range(self.right.shape[1]):
            right = np.flatnonzero(self.right[:, threshold])
            if not len(right):
                continue
            hits = counts[:, right].cumsum(axis=1)
            listed = before[:, right] + self._sometimes(counts, ~always & self.listed[:, threshold], right)
            best = np.maximum.accumulate((hits / np.maximum(listed, 1))[:, ::-1], axis=1)[:, ::-1]
            reached = np.take_along_axis(levels, hits, axis=1)
            ap[:, threshold] = (best * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(RECALLS)
        return ap * (wanted > 0)[:, None]

    @staticmethod
    def _sometimes(counts: np.ndarray, extra: np.ndarray, right: np.ndarray) -> np.ndarray | int:
        """How many detections up to each right one are listed at this threshold and not at every one."""
        places = np.flatnonzero(extra)
        if not len(places):
            return 0
        sums = np.pad(counts[:, places].cumsum(axis=1), ((0, 0), (1, 0)))
        return sums[:, np.searchsorted(places, right, side="right")]
