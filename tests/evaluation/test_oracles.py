from __future__ import annotations

from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.oracles import with_true_classes
from maskbench.evaluation.scoring import score

HERE, THERE, NOWHERE = (2, 2, 10, 10), (22, 22, 10, 10), (2, 30, 5, 5)
"""Places in a photo of 40 x 40."""


def test_a_detection_gets_the_class_of_what_it_overlaps_most(annotation_file, result) -> None:
    path = annotation_file([(7, 3, HERE), (7, 8, THERE), (11, 3, (0, 0, 40, 40), "crowd")])
    found = [
        result(7, 8, HERE, 0.9),
        result(11, 8, HERE, 0.8),  # a crowd has no say
        result(7, 3, (20, 20, 10, 10), 0.7),
        result(7, 8, NOWHERE, 0.6),
    ]
    named = with_true_classes(GroundTruth(path), found)
    assert [(row["image_id"], row["category_id"], row["score"]) for row in named] == [
        (7, 3, 0.9),
        (7, 8, 0.7),
        (7, 8, 0.6),
        (11, 8, 0.8),
    ]
    assert score(path, found, iou_type="segm").summary["AP50"] == 0
    # class 8: its detection overlaps by 64 / 136 only, less than half
    assert score(path, named, iou_type="segm").summary["AP50"] == 0.5
    assert with_true_classes(GroundTruth(path), []) == []


def test_one_region_under_two_classes_is_one_detection(annotation_file, result) -> None:
    path = annotation_file([(7, 3, HERE)])
    twice = [result(7, 8, HERE, 0.8), result(7, 3, HERE, 0.9), result(7, 3, (3, 2, 10, 10), 0.7)]
    named = with_true_classes(GroundTruth(path), twice)
    # the duplicate of the right class stays: classes are not what is wrong with it
    assert [(row["category_id"], row["score"]) for row in named] == [(3, 0.9), (3, 0.7)]
