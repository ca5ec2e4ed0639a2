"""Why AP is lost: what is wrong with each detection, and what curing it would gain (TIDE: Bolya et al., ECCV 2020).

D detections   G truths   d g of an image

Six kinds, of which every wrong detection and every missed truth is one, at an IoU of 0.5 (sections 2.2 and 2.3; the
order of the questions is that of the authors' tool):

    localisation   on an object of its class, but only by 0.1 to 0.5
    class          on an object of another class
    duplicate      on an object of its class that a better detection has found
    background     on nothing (0.1 at most)
    both           on an object of another class, and badly placed
    missed         a truth that no detection above would find if it were cured

Two more are seen in masks alone, and are also of one of the six: *merged*, one detection over several truths, and
*split*, several detections that have a truth among them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float, Int64

from maskbench.evaluation.matching import and_none, assign
from maskbench.evaluation.overlaps import Crossing, Overlaps
from maskbench.evaluation.precision_recall import curve

KINDS = ("class", "localisation", "both", "duplicate", "background", "missed")
MASK_KINDS = ("merged", "split")

ENOUGH, NOTHING = 0.5, 0.1
"""IoU from which a detection finds an object, and up to which it is on none."""

COVERED = 0.5
"""A merged detection covers so much of each of its truths, and has so much of itself in all of them; the pieces of a
split one cover so much of it together."""

INSIDE = 0.75
"""A piece of a split truth has so much of itself in the truth."""


@dataclass(frozen=True)
class Errors:
    """What is wrong, and what it costs.

    Attributes:
        ap50: AP at an IoU of 0.5.
        counts: how many there are of each of `KINDS` and `MASK_KINDS`.
        gains: how much higher AP50 would be without them.
        rest: what is missing to 1 beyond AP50 and the gains of `KINDS`: errors that hide one another (negative where
            one cure does another's work; 0 where there is nothing to find).
    """

    ap50: float
    counts: dict[str, int]
    gains: dict[str, float]
    rest: float


def errors(found: Overlaps) -> Errors:
    """What is wrong with the detections, and what each kind of error costs.

    Detections that find what does not count (crowds) are neither right nor wrong.

    Args:
        found: overlaps of masks, with `crossings`.
    """
    case = _Case.of(found)
    now = case.as_it_is()
    classes = np.flatnonzero(now.totals)
    ap50 = now.ap50(classes)
    cured = {kind: case.cured(kind) for kind in KINDS} | {"merged": case.unmerged(), "split": case.joined()}
    gains = {kind: ranking.ap50(classes) - ap50 for kind, ranking in cured.items()}
    counts = {kind: int(np.count_nonzero(case.kind == place)) for place, kind in enumerate(KINDS)}
    counts |= {"missed": int(case.missed.sum()), "merged": len(case.merged), "split": len(case.split)}
    rest = 1 - ap50 - sum(gains[kind] for kind in KINDS) if len(classes) else 0.0
    return Errors(ap50, counts, gains, rest)


@dataclass(frozen=True)
class _Standing:
    """Detections as AP sees them, by class and image; and how many truths each class has."""

    label: Int64[np.ndarray, " D"]
    score: Float[np.ndarray, " D"]
    right: Bool[np.ndarray, " D"]
    kept: Bool[np.ndarray, " D"]
    totals: Int64[np.ndarray, " K"]

    def ap50(self, classes: Int64[np.ndarray, " k"]) -> float:
        """Mean AP of the classes, −1 of none; a class whose truths were all cured away has 0, as in the tool."""
        return float(np.mean([self._of_class(label) for label in classes.tolist()])) if len(classes) else -1.0

    def _of_class(self, label: int) -> float:
        own = np.flatnonzero(self.kept & (self.label == label))
        if not self.totals[label]:
            return 0.0
        right = self.right[own[np.argsort(-self.score[own], kind="stable")]][None]
        return float(curve(right, ~right, int(self.totals[label]))[0].mean())


@dataclass(frozen=True)
class _Case:
    """The diagnosis.

    Attributes:
        right, counted: whether a detection finds a truth, and whether it counts at all.
        kind: its place in `KINDS` where it is wrong, else −1.
        target: the truth that it would find if it were cured, else −1.
        heals: whether it is the best of those that would find that truth, which nobody has found.
        missed: truths that nobody finds or would find.
        merged: wrong detections over several truths, with these.
        split: the pieces of truths, best first.
    """

    found: Overlaps
    right: Bool[np.ndarray, " D"]
    counted: Bool[np.ndarray, " D"]
    kind: Int64[np.ndarray, " D"]
    target: Int64[np.ndarray, " D"]
    heals: Bool[np.ndarray, " D"]
    known: Bool[np.ndarray, " G"]
    missed: Bool[np.ndarray, " G"]
    merged: dict[int, Int64[np.ndarray, " g"]]
    split: dict[int, list[int]]

    @classmethod
    def of(cls, found: Overlaps) -> _Case:
        wanted = ~found.ignored
        taken = assign(found, wanted[:, None], np.array([ENOUGH]))[:, 0, 0]
        right = and_none(wanted & ~found.void)[taken]
        wrong = ~right & ~found.excused & ((taken < 0) | and_none(wanted)[taken])
        known = np.zeros(len(wanted), dtype=bool)
        known[taken[right]] = True
        kind = np.where(wrong, KINDS.index("background"), -1)
        target = np.full(len(kind), -1)
        merged: dict[int, np.ndarray] = {}
        split: dict[int, list[int]] = {}
        for crossing in found.crossings:
            crossing = _part(crossing, wrong, wanted)
            if crossing.iou.size:
                kind[crossing.detections], target[crossing.detections] = _diagnosis(crossing, found, known)
                merged |= _merged(crossing)
                split |= _split(crossing, found, known)
        curable = np.flatnonzero((target >= 0) & ~np.append(known, True)[target])
        curable = curable[np.argsort(-found.score[curable], kind="stable")]
        healed, first = np.unique(target[curable], return_index=True)
        heals = np.zeros(len(kind), dtype=bool)
        heals[curable[first]] = True
        missed = wanted & ~known
        missed[healed] = False
        return cls(found, right, right | wrong, kind, target, heals, known, missed, merged, split)

    def as_it_is(self) -> _Standing:
        label, wanted = self.found.truths.label, ~self.found.ignored
        totals = np.bincount(label[wanted], minlength=len(self.found.classes))
        return _Standing(self.found.detections.label, self.found.score, self.right, self.counted, totals)

    def cured(self, kind: str) -> _Standing:
        """Without one of `KINDS`: what can find its truth does, the rest is gone; missed truths are not asked for."""
        now, own = self.as_it_is(), self.kind == KINDS.index(kind)
        if kind == "missed":
            labels = self.found.truths.label[self.missed]
            return replace(now, totals=now.totals - np.bincount(labels, minlength=len(now.totals)))
        healed = own & self.heals
        label = now.label.copy()
        label[healed] = self.found.truths.label[self.target[healed]]
        return replace(now, label=label, right=now.right | healed, kept=now.kept & (healed | ~own))

    def unmerged(self) -> _Standing:
        """Every detection over several truths becomes one of each that nobody has found."""
        now = self.as_it_is()
        kept = now.kept.copy()
        kept[list(self.merged)] = False
        best: dict[int, float] = {}
        for row, truths in self.merged.items():
            for truth in truths[~self.known[truths]].tolist():
                best[truth] = max(best.get(truth, -np.inf), float(now.score[row]))
        new = np.array(list(best), dtype=np.int64)
        return replace(
            now,
            label=np.append(now.label, self.found.truths.label[new]),
            score=np.append(now.score, list(best.values())),
            right=np.append(now.right, np.ones(len(new), dtype=bool)),
            kept=np.append(kept, np.ones(len(new), dtype=bool)),
        )

    def joined(self) -> _Standing:
        """The best piece of every split truth finds it, the others are gone."""
        now = self.as_it_is()
        right, kept = now.right.copy(), now.kept.copy()
        for first, *rest in self.split.values():
            right[first] = True
            kept[rest] = False
        return replace(now, right=right, kept=kept)


def _part(crossing: Crossing, wrong: np.ndarray, wanted: np.ndarray) -> Crossing:
    """The wrong detections and the truths that count."""
    rows, columns = wrong[crossing.detections], wanted[crossing.truths]
    part = np.ix_(rows, columns)
    return Crossing(crossing.detections[rows], crossing.truths[columns], crossing.iou[part], crossing.inside[part])


def _same_class(crossing: Crossing, found: Overlaps) -> Bool[np.ndarray, "d g"]:
    return found.detections.label[crossing.detections][:, None] == found.truths.label[crossing.truths]


def _diagnosis(
    crossing: Crossing, found: Overlaps, known: Bool[np.ndarray, " G"]
) -> tuple[Int64[np.ndarray, " d"], Int64[np.ndarray, " d"]]:
    """The kind of each wrong detection, and the truth that it would find if it were cured, else −1."""
    same = _same_class(crossing, found)
    own, other = np.where(same, crossing.iou, 0), np.where(same, 0, crossing.iou)
    near, used = own.max(axis=1), (own * known[crossing.truths]).max(axis=1)
    answers = {
        "localisation": (near >= NOTHING) & (near <= ENOUGH),
        "class": other.max(axis=1) >= ENOUGH,
        "duplicate": used >= ENOUGH,
        "background": crossing.iou.max(axis=1) <= NOTHING,
    }
    kind = np.select(list(answers.values()), [KINDS.index(name) for name in answers], KINDS.index("both"))
    target = np.full(len(kind), -1)
    for name, overlap in (("localisation", own), ("class", other)):
        rows = kind == KINDS.index(name)
        target[rows] = crossing.truths[overlap[rows].argmax(axis=1)]
    return kind, target


def _merged(crossing: Crossing) -> dict[int, Int64[np.ndarray, " g"]]:
    """Detections that cover several truths, and consist of them, with these truths."""
    over = crossing.covered >= COVERED
    several = (over.sum(axis=1) > 1) & ((crossing.inside * over).sum(axis=1) >= COVERED)
    return {int(crossing.detections[row]): crossing.truths[over[row]] for row in np.flatnonzero(several)}


def _split(crossing: Crossing, found: Overlaps, known: Bool[np.ndarray, " G"]) -> dict[int, list[int]]:
    """Truths that nobody found and that several detections, apart from each other, have among them."""
    inside = (crossing.inside >= INSIDE) & _same_class(crossing, found) & ~known[crossing.truths]
    split = {}
    for column in np.flatnonzero(inside.sum(axis=0) > 1):
        rows = np.flatnonzero(inside[:, column])
        rows = rows[np.argsort(-found.score[crossing.detections[rows]], kind="stable")]
        pieces = _apart(rows, [found.detections.shapes[crossing.detections[row]] for row in rows])
        if len(pieces) > 1 and crossing.covered[pieces, column].sum() >= COVERED:
            split[int(crossing.truths[column])] = crossing.detections[pieces].tolist()
    return split


def _apart(rows: Int64[np.ndarray, " d"], shapes: list[Any]) -> list[int]:
    """Those rows, in their order, that hardly overlap one before them."""
    overlap = np.asarray(rle_codec.iou(shapes, shapes, [0] * len(shapes)))
    chosen: list[int] = []
    for place in range(len(rows)):
        if (overlap[place, chosen] <= NOTHING).all():
            chosen.append(place)
    return rows[chosen].tolist()
