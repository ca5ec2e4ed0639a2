from __future__ import annotations

import json
import random
from dataclasses import asdict

import numpy as np
import pycocotools.mask as rle_codec
import pytest

from maskbench.evaluation.counting import Counting, Counts, counting
from maskbench.evaluation.ground_truth import GroundTruth

HERE, THERE, THIRD = (2, 2, 10, 10), (22, 22, 10, 10), (2, 22, 10, 10)
WORSE = (2, 2, 10, 8)
"""Lies in HERE: its Dice is 2·80 / (80 + 100) = 8/9."""

RIGHT = Counts(dic=0, abs_dic=0, exact=1, sbd=1)


@pytest.fixture
def count(annotation_file, result):
    """What counting truths (image, category, box) by detections (image, category, box, score) is worth."""

    def make(truths, detections, threshold: float = 0.5, **settings) -> Counting:
        truth = GroundTruth(annotation_file(truths))
        return counting(truth, [result(*found) for found in detections], threshold, **settings)

    return make


def near(found: Counts, **numbers: float) -> bool:
    return asdict(found) == pytest.approx(numbers)


def test_two_images_by_hand(count):
    truths = [(7, 3, HERE), (7, 3, THERE), (11, 3, HERE)]
    detections = [
        (7, 3, WORSE, 0.9),
        (11, 3, HERE, 0.8),
        (11, 3, THIRD, 0.7),  # nothing is there
        (11, 3, THERE, 0.6),  # nor there
        (7, 3, THERE, 0.4),  # below the threshold
    ]
    # image 7: one of two, the best Dice of the truths is (8/9 + 0) / 2, of the detection 8/9;
    # image 11: three of one, the best Dice of the truth is 1, of the detections (1 + 0 + 0) / 3
    found = count(truths, detections).overall
    assert near(found, dic=(-1 + 2) / 2, abs_dic=(1 + 2) / 2, exact=0, sbd=(4 / 9 + 1 / 3) / 2)
    found = count(truths, detections, threshold=0.4).overall
    assert near(found, dic=1, abs_dic=1, exact=0.5, sbd=((8 / 9 + 1) / 2 + 1 / 3) / 2)


def test_what_scores_just_as_much_as_the_threshold_is_kept(count):
    assert count([(7, 3, HERE)], [(7, 3, HERE, 0.5)]).overall == RIGHT


def test_an_object_may_be_the_best_of_several(count):
    """Two halves of an object have Dice 2/3 each, and so has the object."""
    halves = [(7, 3, (2, 2, 5, 10), 0.9), (7, 3, (7, 2, 5, 10), 0.9)]
    found = count([(7, 3, HERE)], halves, image_ids=[7]).overall
    assert near(found, dic=1, abs_dic=1, exact=0, sbd=2 / 3)


def test_overall_the_class_does_not_matter_and_by_class_it_does(count):
    found = count([(7, 3, HERE), (7, 8, THERE)], [(7, 3, HERE, 0.9), (7, 3, THERE, 0.9)], image_ids=[7])
    assert found.overall == RIGHT
    assert found.per_class == {
        "class 3": Counts(dic=1, abs_dic=1, exact=0, sbd=1 / 2),
        "class 8": Counts(dic=-1, abs_dic=1, exact=0, sbd=0),
    }


def test_images_of_nothing(count):
    assert count([], []).overall == RIGHT
    # image 7 has an object that is missed, image 11 has nothing; then the reverse
    assert count([(7, 3, HERE)], []).overall == Counts(dic=-0.5, abs_dic=0.5, exact=0.5, sbd=0.5)
    assert count([], [(7, 3, HERE, 0.9)]).overall == Counts(dic=0.5, abs_dic=0.5, exact=0.5, sbd=0.5)


def test_crowds_are_no_objects_and_excuse_what_lies_in_them(count):
    crowd = (7, 3, (0, 0, 20, 20), "crowd")
    assert count([crowd], []).overall == RIGHT
    assert count([crowd], [(7, 3, HERE, 0.9), (7, 3, WORSE, 0.9)]).overall == RIGHT
    # of another class, or beside it
    assert count([crowd], [(7, 8, HERE, 0.9)]).overall.dic == 0.5
    assert count([crowd], [(7, 3, THERE, 0.9)]).overall.dic == 0.5
    # a detection in the crowd is no object's best either
    assert count([crowd, (7, 3, HERE)], [(7, 3, HERE, 0.9), (7, 3, WORSE, 0.8)]).overall == RIGHT
    assert count([crowd, (7, 8, HERE)], [(7, 3, HERE, 0.9)], image_ids=[7]).overall.sbd == 0


def test_the_truth_itself_is_counted_right(shared):
    truth = GroundTruth(shared / "data" / "dsb2018" / "annotations" / "instances_val.json")
    everything = [{**annotation, "score": 1.0} for annotation in truth.annotations("segm")]
    found = counting(truth, everything, 0.5, max_instances=1000)
    assert found == Counting(overall=RIGHT, per_class={"nucleus": RIGHT})
    assert counting(truth, [], 0.5).overall.sbd == 0


@pytest.mark.parametrize("seed", range(5))
def test_random_scenes_agree_with_the_definition_pixel_by_pixel(seed, random_scene, tmp_path):
    content, results = random_scene(seed, images=6)
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    found = counting(GroundTruth(path), results, 0.4).overall
    dic, sbd = [], []
    for image in content["images"]:
        there = [decoded(row) for row in content["annotations"] if row["image_id"] == image["id"]]
        kept = [decoded(row) for row in results if row["image_id"] == image["id"] and row["score"] >= 0.4]
        dic.append(len(kept) - len(there))
        sbd.append(min(best_dice(there, kept), best_dice(kept, there)) if there or kept else 1)
    exact = np.mean(np.equal(dic, 0))
    assert near(found, dic=np.mean(dic), abs_dic=np.mean(np.abs(dic)), exact=exact, sbd=np.mean(sbd))


def decoded(row) -> np.ndarray:
    return rle_codec.decode(row["segmentation"]).astype(bool)


def best_dice(masks, others) -> float:
    """Equation 2 of Scharr et al., mask by mask."""
    if not masks or not others:
        return 0.0
    dice = [max(2 * (one & two).sum() / max(1, one.sum() + two.sum()) for two in others) for one in masks]
    return float(np.mean(dice))


def test_the_order_of_the_predictions_does_not_matter(random_scene, tmp_path):
    content, results = random_scene(3)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    truth = GroundTruth(path)
    for place, found in enumerate(results):  # of equal scores the first is matched first
        found["score"] += 1e-6 * place
    expected = counting(truth, results, 0.3)
    for _ in range(3):
        random.shuffle(results)
        assert counting(truth, results, 0.3) == expected
