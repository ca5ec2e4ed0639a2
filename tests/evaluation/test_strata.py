from __future__ import annotations

import numpy as np
import pytest

from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import overlaps
from maskbench.evaluation.precision_recall import curves, mean
from maskbench.evaluation.strata import boundary_length, crowding, occlusion, sizes

ROW = [(2, 2, 6, 6), (8, 2, 6, 6), (14, 8, 6, 6), (30, 30, 6, 6)]
"""The second touches the first by a border and the third by a corner; the fourth stands alone."""


@pytest.fixture
def found(annotation_file, result):
    """Overlaps of detections of image 7 (box, score) with truths (box) of one class."""

    def make(truths, detections=()):
        path = annotation_file([(7, 3, *truth) if isinstance(truth[0], tuple) else (7, 3, truth) for truth in truths])
        results = [result(7, 3, box, value) for box, value in detections]
        return overlaps(GroundTruth(path), results, across_classes=True)

    return make


def members(strata) -> dict[str, list[int]]:
    return {name: np.flatnonzero(stratum.truths).tolist() for name, stratum in strata.items()}


def test_neighbours_touch_by_border_or_corner(found):
    assert members(crowding(found(ROW))) == {"alone": [3], "one or two": [0, 1, 2], "three or more": []}
    # an object at the photo's edge, one between three, and one a pixel away from everybody
    crowd = [(0, 0, 6, 6), (6, 0, 6, 6), (12, 0, 6, 6), (6, 6, 6, 6), (20, 0, 6, 6)]
    assert members(crowding(found(crowd))) == {"alone": [4], "one or two": [0, 2], "three or more": [1, 3]}


def test_crowds_are_nobodys_neighbours(found):
    strata = crowding(found([ROW[0], (ROW[1], "crowd")]))
    assert members(strata)["alone"] == [0, 1]
    assert match(found([ROW[0], (ROW[1], "crowd")]), strata).counted[:, 0].tolist() == [True, False]


def test_occlusion_is_the_share_of_the_box_that_others_take(found):
    # a frame of 20 x 20 with 4 x 4 taken by another object (4 %), and a box of 10 x 10 half of which is another's
    strata = occlusion(found([(0, 0, 20, 20), (4, 4, 4, 4), (30, 0, 10, 10), (35, 0, 5, 10)]))
    assert members(strata) == {"none": [], "up to a tenth": [0], "more": [1, 2, 3]}


def test_a_boundary_is_as_long_as_its_outline_has_pixels(found):
    # squares of 4 sides less 4 corners; a plate of 33 x 33 pixels has an outline of 128, one of 34 x 34 has 132
    strata = boundary_length(found([(0, 0, 33, 33), (0, 0, 34, 34), (3, 3, 1, 1)]))
    assert members(strata) == {"up to 128 px": [0, 2], "to 384 px": [1], "longer": []}


def test_sizes_are_cocos(found):
    assert members(sizes(found([(0, 0, 32, 32), (0, 0, 33, 32)]))) == {
        "all": [0, 1],
        "small": [0],
        "medium": [0, 1],
        "large": [],
    }


def test_what_finds_nothing_counts_where_it_is_nearest(found):
    # half beside the first object (crowded), half beside the last (alone), and one that is nowhere
    detections = [((2, 5, 6, 6), 0.9), ((30, 33, 6, 6), 0.8), ((20, 20, 4, 4), 0.7)]
    case = found(ROW, detections)
    blamed = {name: stratum.detections.tolist() for name, stratum in crowding(case).items()}
    assert blamed == {
        "alone": [False, True, True],
        "one or two": [True, False, True],
        "three or more": [False, False, True],
    }


def test_ap_of_a_stratum_by_hand(found):
    # the lonely object is found, of the three crowded ones one, after a wrong one beside it
    detections = [(ROW[3], 0.9), ((2, 5, 6, 6), 0.8), (ROW[1], 0.7)]
    case = found(ROW, detections)
    precision = curves(match(case, crowding(case)), [100]).precision
    alone, some, many = (mean(precision[..., stratum, -1]) for stratum in range(3))
    assert alone == pytest.approx(1)
    assert some == pytest.approx(0.5 * 34 / 101)
    assert many == -1
