from __future__ import annotations

import numpy as np
import pytest

from finders import found_with
from maskbench.evaluation.deployment import best_threshold, tally
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import overlaps

HERE, THERE, THIRD = (2, 2, 10, 10), (22, 22, 10, 10), (2, 22, 10, 10)
WORSE = (2, 2, 10, 8)
"""Overlaps HERE by 0.8."""


@pytest.fixture
def matches(annotation_file, result):
    """Of truths (image, category, box) and detections (image, category, box, score)."""

    def make(truths, detections):
        return match(overlaps(GroundTruth(annotation_file(truths)), [result(*found) for found in detections]))

    return make


def test_what_is_kept_is_counted_by_hand(matches):
    truths = [(7, 3, HERE), (7, 3, THERE), (11, 8, HERE), (11, 3, (0, 20, 20, 20), "crowd")]
    detections = [
        (7, 3, WORSE, 0.9),
        (7, 3, THIRD, 0.8),  # nothing is there
        (11, 8, HERE, 0.7),
        (11, 3, (2, 22, 5, 5), 0.6),  # in the crowd: not counted
        (7, 3, THERE, 0.1),  # below the threshold
    ]
    found = tally(matches(truths, detections), 0.5)
    assert (found.detections, found.truths) == (3, 3)
    assert (found.precision, found.recall, found.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found.accuracy["0.50"] == found.accuracy["0.80"] == pytest.approx(2 / 4)
    assert found.accuracy["0.85"] == pytest.approx(1 / 5)
    assert found.mean_accuracy == pytest.approx((7 * 2 / 4 + 3 / 5) / 10)
    # one class has a hit of 0.8, a false alarm and a truth that nobody finds, the other one a perfect hit
    assert (found.sq, found.rq) == pytest.approx(((0.8 + 1) / 2, (1 / 2 + 1) / 2))
    assert found.pq == pytest.approx((0.8 / 2 + 1) / 2)


def test_a_class_that_was_found_where_it_is_not_lowers_panoptic_quality(matches):
    truths = [(7, 3, HERE)]
    assert tally(matches(truths, [(7, 3, HERE, 0.9)]), 0).pq == 1
    assert tally(matches(truths, [(7, 3, HERE, 0.9), (7, 8, HERE, 0.9)]), 0).pq == 0.5


def test_the_best_threshold_lies_where_f1_is_highest(matches):
    truths = [(7, 3, HERE), (7, 3, THERE), (11, 8, HERE)]
    detections = [(7, 3, HERE, 0.9), (11, 8, HERE, 0.7), (7, 3, THIRD, 0.4), (11, 8, THIRD, 0.3), (7, 3, THERE, 0.2)]
    found = matches(truths, detections)
    # F1 of the best two is 4/5, of all five 6/8
    assert best_threshold(found) == pytest.approx((0.7 + 0.4) / 2)
    assert tally(found, best_threshold(found)).f1 == pytest.approx(4 / 5)
    every = [tally(found, score).f1 for score in found.score]
    assert max(every) == pytest.approx(4 / 5)


def test_equal_scores_stay_together(matches):
    truths = [(7, 3, HERE), (11, 8, HERE)]
    found = matches(truths, [(7, 3, HERE, 0.5), (7, 3, THIRD, 0.5), (11, 8, HERE, 0.1)])
    # to leave the wrong one of the two out is no choice: all three have 4/5, both 2/4
    assert best_threshold(found) == 0
    assert best_threshold(matches(truths, [(7, 3, THIRD, 0.5)])) is None
    assert best_threshold(matches(truths, [])) is None


def test_no_threshold_of_a_random_finder_is_better():
    found = found_with(0.4, seed=3)
    best = tally(found, best_threshold(found)).f1
    assert best == pytest.approx(max(tally(found, score).f1 for score in np.unique(found.score)))


def test_nothing_and_everything(matches):
    truths = [(7, 3, HERE), (11, 8, THERE)]
    numbers = ("precision", "recall", "f1", "mean_accuracy", "pq", "sq", "rq")
    for detections, value in (([], 0), ([(*truth, 1.0) for truth in truths], 1)):
        found = tally(matches(truths, detections), 0.0)
        assert [getattr(found, name) for name in numbers] == [value] * len(numbers)
        assert set(found.accuracy.values()) == {value}
    # crowds alone: there is nothing to find
    nothing = tally(matches([(7, 3, HERE, "crowd")], [(7, 3, THERE, 0.5)]), 0.0)
    assert [getattr(nothing, name) for name in numbers] == [-1] * len(numbers)
    assert set(nothing.accuracy.values()) == {-1}
