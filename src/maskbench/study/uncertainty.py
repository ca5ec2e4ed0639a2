"""How far the differences of a study can be trusted: intervals, pairs, and letters for what can't be told apart.

N runs of a row   B draws

With one seed a row is a set of weights, and draws are of images alone; with several it is a method, and draws are of
seeds and images (`evaluation.bootstrap.over_seeds`). All rows share the draws of images, so that an image that is hard
for everybody moves no difference.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, count, product

import numpy as np
from jaxtyping import Float

from maskbench.evaluation.bootstrap import chance, draw, drawn_ap, holm, interval, over_seeds, whole_ap
from maskbench.evaluation.matches import Matches

DRAWS, DRAWS_A_PAIR, MOST_DRAWS = 1000, 40, 4000
"""At least so many draws, so many for each pair, and no more than can be borne: a p-value is no smaller than one by the
number of draws, and the best of many pairs is corrected by their number."""

LEVEL = 0.05
"""What is less probable than this is no chance."""


@dataclass(frozen=True)
class Pair:
    """The AP of one row less that of another, the 95 % interval, and the p-value, corrected for all pairs (Holm)."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    chance: float

    @property
    def apart(self) -> bool:
        """Whether the difference can be told from zero."""
        return self.chance < LEVEL


@dataclass(frozen=True)
class Uncertainty:
    """What can be said of the mask AP of a footing's rows.

    Args:
        draws: of images.
        intervals: 95 % of each row's AP, by label.
        pairs: every two rows, the better one first.
        letters: by label; rows that share a letter can't be told apart.
    """

    draws: int
    intervals: dict[str, tuple[float, float]]
    pairs: tuple[Pair, ...]
    letters: dict[str, str]

    def between(self, one: str, other: str) -> Pair | None:
        """The pair of two rows, whichever is better; None where one of them is not known."""
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {one, other}), None)


def assess(rows: Mapping[str, Sequence[Matches]]) -> Uncertainty | None:
    """Bootstrap the rows of a footing; None where there are none, or nothing to find.

    Draws without any object tell nothing of AP and are left out, the same for all rows.

    Args:
        rows: by label the matches of each of its runs, all of the same images.

    Raises:
        ValueError: they are of other images.
    """
    images = {matches.images for runs in rows.values() for matches in runs}
    if not images:
        return None
    if len(images) > 1:
        raise ValueError(f"runs of one footing have the same images, found {sorted(map(len, images))} of them")
    pairs_to_tell = len(rows) * (len(rows) - 1) // 2
    weights = _with_objects(rows, draw(len(images.pop()), min(max(DRAWS, DRAWS_A_PAIR * pairs_to_tell), MOST_DRAWS)))
    if not len(weights):
        return None
    sampled = {label: _sampled(runs, weights, seed) for seed, (label, runs) in enumerate(rows.items())}
    ranked = sorted(sampled, key=lambda label: -sampled[label][0])
    pairs = _pairs(ranked, sampled)
    together = {frozenset((pair.first, pair.second)) for pair in pairs if not pair.apart}
    return Uncertainty(
        draws=len(weights),
        intervals={label: _within(interval(*sampled[label]), 0.0, 1.0) for label in ranked},
        pairs=tuple(pairs),
        letters=_letters(ranked, together),
    )


def _with_objects(rows: Mapping[str, Sequence[Matches]], weights: np.ndarray) -> np.ndarray:
    any_run = next(matches for runs in rows.values() for matches in runs)
    objects = np.bincount(any_run.truth_image[any_run.counted[:, 0]], minlength=weights.shape[1])
    return weights[weights @ objects > 0]


def _sampled(runs: Sequence[Matches], weights: np.ndarray, seed: int) -> tuple[float, Float[np.ndarray, " B"]]:
    """A row's mean AP, and the same of each draw."""
    values = np.stack([drawn_ap(matches, weights).mean(axis=1) for matches in runs])
    estimates = np.array([whole_ap(matches) for matches in runs])
    return float(estimates.mean()), over_seeds(values, estimates, seed)


def _pairs(ranked: Sequence[str], sampled: Mapping[str, tuple[float, np.ndarray]]) -> list[Pair]:
    both = list(combinations(ranked, 2))
    differences = [sampled[first][0] - sampled[second][0] for first, second in both]
    draws = [sampled[first][1] - sampled[second][1] for first, second in both]
    chances = holm([chance(*found) for found in zip(differences, draws, strict=True)])
    return [
        Pair(*labels, difference, *_within(interval(difference, drawn), -1.0, 1.0), corrected)
        for labels, difference, drawn, corrected in zip(both, differences, draws, chances, strict=True)
    ]


def _within(bounds: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    return max(low, bounds[0]), min(high, bounds[1])


def _letters(ranked: Sequence[str], together: set[frozenset[str]]) -> dict[str, str]:
    """A letter for each largest set of rows of which no two can be told apart, the best rows' first."""
    sets = sorted(_cliques([], list(ranked), [], together), key=lambda own: sorted(map(ranked.index, own)))
    named = list(zip(_names(), sets, strict=False))
    return {label: "".join(name for name, own in named if label in own) for label in ranked}


def _cliques(own: list[str], left: list[str], done: list[str], together: set[frozenset[str]]) -> Iterator[list[str]]:
    """All largest sets that hold `own`, some of `left` and none of `done` (Bron & Kerbosch, 1973)."""
    if not left and not done:
        yield own
        return

    def near(label: str, others: Sequence[str]) -> list[str]:
        return [other for other in others if frozenset((label, other)) in together]

    # a largest set without the pivot holds somebody who is not near it: nobody else has to be tried
    pivot = max((*left, *done), key=lambda label: len(near(label, left)))
    for label in [label for label in left if label not in near(pivot, left)]:
        yield from _cliques([*own, label], near(label, left), near(label, done), together)
        left, done = [other for other in left if other != label], [*done, label]


def _names() -> Iterator[str]:
    """a, b, … z, aa, ab, …"""
    for length in count(1):
        yield from map("".join, product(string.ascii_lowercase, repeat=length))
