from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finders import found_with
from maskbench.evaluation.calibration import calibrate
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import overlaps

HERE, THERE = (2, 2, 10, 10), (22, 22, 10, 10)


def test_bins_by_hand(annotation_file, result):
    path = annotation_file([(7, 3, HERE), (11, 8, HERE), (11, 3, (0, 20, 20, 20), "crowd")])
    results = [
        result(7, 3, HERE, 0.95),
        result(11, 8, HERE, 0.93),
        result(7, 3, THERE, 0.91),
        result(7, 8, THERE, 0.15),
        result(11, 3, (2, 22, 5, 5), 0.5),  # in the crowd: not counted
    ]
    found = calibrate(match(overlaps(GroundTruth(path), results)))
    assert found.counts.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert found.score[[1, 9]] == pytest.approx([0.15, 0.93])
    assert found.right[[1, 9]] == pytest.approx([0, 2 / 3])
    assert np.isnan(found.right[0])
    # three are 0.93 − 0.667 too sure of themselves, one 0.15
    assert found.error == pytest.approx((3 * (0.93 - 2 / 3) + 0.15) / 4)


def test_scores_at_the_ends_have_a_bin_and_nothing_has_none(annotation_file, result):
    path = annotation_file([(7, 3, HERE)])
    found = calibrate(match(overlaps(GroundTruth(path), [result(7, 3, HERE, 1.0), result(7, 3, THERE, 0.0)])))
    assert (found.counts[0], found.counts[9], found.error) == (1, 1, 0)
    nothing = calibrate(match(overlaps(GroundTruth(path), [])))
    assert nothing.counts.sum() == 0
    assert np.isnan(nothing.error)


def test_scores_that_are_probabilities_are_calibrated_and_their_halves_are_not():
    rng = np.random.default_rng(0)
    matches = found_with(0.5, 1, images=2000)
    score = rng.random(len(matches.score))
    right = np.tile((rng.random(len(score)) < score)[:, None, None], (1, 1, 10))
    known = replace(matches, score=score, right=right, wrong=~right)
    assert calibrate(known).error < 0.03
    # the mean score is one half, and half of it a quarter
    assert calibrate(replace(known, score=score / 2)).error == pytest.approx(0.25, abs=0.02)
