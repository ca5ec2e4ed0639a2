from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskbench.evaluation.errors import KINDS, MASK_KINDS, Errors, errors
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.overlaps import overlaps
from maskbench.evaluation.scoring import score

LEFT, RIGHT, BELOW = (2, 2, 10, 10), (22, 2, 10, 10), (2, 22, 10, 10)
"""Three objects of a 40 × 40 image that touch nobody."""


@pytest.fixture
def judge(annotation_file, result):
    """Errors of detections of image 7 (class, box, score), given its truths (class, box)."""

    def make(truths, detections) -> Errors:
        path = annotation_file([(7, *truth) for truth in truths])
        results = [result(7, category, box, value) for category, box, value in detections]
        found = errors(overlaps(GroundTruth(path), results, across_classes=True))
        assert found.ap50 == pytest.approx(score(path, results, iou_type="segm").summary["AP50"], abs=1e-12)
        assert found.ap50 + sum(found.gains[kind] for kind in KINDS) + found.rest == pytest.approx(1)
        return found

    return make


def only(found: Errors, **counts: int) -> bool:
    """Whether these errors are there and no others."""
    return found.counts == dict.fromkeys((*KINDS, *MASK_KINDS), 0) | counts


def gains(found: Errors) -> dict[str, float]:
    return {kind: pytest.approx(gain, abs=1e-9) for kind, gain in found.gains.items() if abs(gain) > 1e-9}


def test_nothing_is_wrong(judge):
    found = judge([(3, LEFT), (8, RIGHT)], [(3, LEFT, 0.9), (8, RIGHT, 0.8)])
    assert only(found)
    assert (found.ap50, found.rest, gains(found)) == (1, pytest.approx(0), {})


def test_localisation(judge):
    # half of the object and as much beside it: an IoU of 1/3; it outranks the right one of two objects
    found = judge([(3, LEFT), (3, RIGHT)], [(3, (7, 2, 10, 10), 0.9), (3, RIGHT, 0.8)])
    assert only(found, localisation=1)
    # precision 1/2 up to recall 1/2, at 51 of 101 recalls
    assert found.ap50 == pytest.approx(0.5 * 51 / 101)
    assert gains(found) == {"localisation": 1 - 0.5 * 51 / 101}
    assert found.rest == pytest.approx(0, abs=1e-9)


def test_class(judge):
    found = judge([(3, LEFT), (8, RIGHT)], [(8, LEFT, 0.9), (8, RIGHT, 0.8)])
    assert only(found, **{"class": 1})
    # class 3 finds nothing, class 8 is right with its second detection
    assert found.ap50 == pytest.approx(0.25)
    assert gains(found) == {"class": 0.75}


def test_duplicate(judge):
    found = judge([(3, LEFT), (3, RIGHT)], [(3, LEFT, 0.9), (3, (3, 2, 10, 10), 0.8), (3, RIGHT, 0.7)])
    assert only(found, duplicate=1)
    # precision 1 up to recall 1/2, then 2/3
    assert found.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert gains(found) == {"duplicate": 1 - found.ap50}


def test_background(judge):
    found = judge([(3, LEFT)], [(3, RIGHT, 0.9), (3, LEFT, 0.8)])
    assert only(found, background=1)
    assert (found.ap50, gains(found)) == (pytest.approx(0.5), {"background": 0.5})


def test_background_of_an_image_without_objects(annotation_file, result):
    path = annotation_file([(7, 3, LEFT)])
    found = overlaps(GroundTruth(path), [result(7, 3, LEFT), result(11, 3, LEFT, 0.95)], across_classes=True)
    assert only(errors(found), background=1)


def test_both(judge):
    found = judge([(3, LEFT), (8, RIGHT)], [(8, (7, 2, 10, 10), 0.9), (8, RIGHT, 0.8), (3, LEFT, 0.7)])
    assert only(found, both=1)
    assert (found.ap50, gains(found)) == (pytest.approx(0.75), {"both": 0.25})


def test_missed(judge):
    found = judge([(3, LEFT), (3, RIGHT)], [(3, LEFT, 0.9)])
    assert only(found, missed=1)
    assert found.ap50 == pytest.approx(51 / 101)
    assert gains(found) == {"missed": pytest.approx(50 / 101)}


def test_a_truth_that_a_cure_would_find_is_not_missed_and_found_once(judge):
    beside, nearer = (7, 2, 10, 10), (6, 2, 10, 10)
    found = judge([(3, LEFT), (3, RIGHT)], [(3, RIGHT, 0.9), (3, beside, 0.8), (3, nearer, 0.7)])
    assert only(found, localisation=2)
    assert gains(found) == {"localisation": 1 - found.ap50}, "the first becomes right, the second is gone"


def test_what_a_crowd_swallows_is_no_error(judge):
    found = judge([(3, LEFT), (3, (20, 20, 20, 20), "crowd")], [(3, LEFT, 0.9), (3, (22, 22, 5, 5), 0.95)])
    assert only(found)


def test_merged(judge):
    # two touching objects of 10 x 10 under one mask of 20 x 10, whose IoU with either is 1/2: enough to find one
    touching = (12, 2, 10, 10)
    found = judge([(3, LEFT), (3, touching), (3, BELOW)], [(3, (2, 2, 22, 11), 0.9), (3, BELOW, 0.8)])
    assert only(found, localisation=1, missed=1, merged=1)
    # precision 1/2 up to recall 1/3; unmerged all three are found, both before the third
    assert found.ap50 == pytest.approx(0.5 * 34 / 101)
    assert found.gains["merged"] == pytest.approx(1 - found.ap50)


def test_split(judge):
    big = (2, 2, 20, 20)
    halves = [(3, (2, 2, 20, 9), 0.9), (3, (2, 12, 20, 9), 0.8)]
    found = judge([(3, big)], halves)
    assert only(found, localisation=2, split=1)
    assert (found.ap50, found.gains["split"]) == (0, pytest.approx(1))
    shifted = [(3, (2, 2, 20, 9), 0.9), (3, (2, 3, 20, 9), 0.8)]
    assert only(judge([(3, big)], shifted), localisation=2), "two that lie on each other are no pieces"


def test_nothing_to_find_is_undefined_and_nothing_found_all_missed(annotation_file, result):
    found = errors(overlaps(GroundTruth(annotation_file([])), [result(7, 3, LEFT)], across_classes=True))
    assert (found.ap50, found.counts["background"], found.rest) == (-1, 1, 0)
    found = errors(overlaps(GroundTruth(annotation_file([(7, 3, LEFT)])), [], across_classes=True))
    assert only(found, missed=1)
    assert found.ap50 == 0


@pytest.mark.parametrize("seed", range(6))
def test_every_wrong_detection_has_one_kind(tmp_path: Path, random_scene, seed):
    content, results = random_scene(seed, objects=15)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    found = overlaps(GroundTruth(path), results, across_classes=True)
    wrong = score(path, results, iou_type="segm").matches.wrong[:, 0, 0].sum()
    assert sum(errors(found).counts[kind] for kind in KINDS if kind != "missed") == wrong
