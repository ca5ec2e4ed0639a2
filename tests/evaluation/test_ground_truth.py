from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskbench.errors import DataError
from maskbench.evaluation.ground_truth import GroundTruth

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]


def write(path: Path, *annotations: dict, **changes) -> Path:
    numbered = [{"id": number, "image_id": 1, "category_id": 4} | found for number, found in enumerate(annotations, 1)]
    content = {
        "images": [{"id": 1, "height": 10, "width": 12}],
        "categories": [{"id": 4, "name": "cell"}],
        "annotations": numbered,
    }
    path.write_text(json.dumps(content | changes))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "truth.json"


def test_polygons_and_run_lengths_are_one_mask(path: Path):
    counts = [2 * 10 + 2, 4, 6, 4, 6, 4, 6, 4, 6 * 10 + 4]
    truth = GroundTruth(write(path, {"segmentation": SQUARE}, {"segmentation": {"size": [10, 12], "counts": counts}}))
    polygon, runs = truth.annotations("segm")
    assert polygon["segmentation"] == runs["segmentation"]


def test_what_is_left_out_is_the_masks(path: Path):
    (found,) = GroundTruth(write(path, {"segmentation": SQUARE})).annotations("segm")
    assert (found["area"], found["bbox"], found["iscrowd"]) == (16, [2, 2, 4, 4], 0)
    (found,) = GroundTruth(write(path, {"segmentation": SQUARE})).annotations("bbox")
    assert (found["area"], found["bbox"]) == (16, [2, 2, 4, 4])
    (found,) = GroundTruth(write(path, {"bbox": [1, 1, 2, 3]})).annotations("bbox")
    assert found["area"] == 6


def test_what_is_there_is_left_untouched(path: Path):
    stated = {"segmentation": SQUARE, "bbox": [0, 0, 9, 9], "area": 15.5, "iscrowd": 1}
    truth = GroundTruth(write(path, stated))
    assert truth.annotations("segm")[0]["area"] == 15.5
    assert truth.annotations("bbox")[0]["bbox"] == [0, 0, 9, 9]
    assert truth.annotations("bbox")[0]["iscrowd"] == 1


def test_annotations_of_unlisted_images_and_categories_are_passed_over(path: Path):
    truth = GroundTruth(write(path, {"image_id": 2}, {"category_id": 5}, {"segmentation": SQUARE}))
    assert [found["id"] for found in truth.annotations("segm")] == [3]


def test_images_that_do_not_count_are_passed_over(path: Path):
    images = [{"id": 1, "height": 10, "width": 12}, {"id": 2, "height": 10, "width": 12}]
    write(path, {"segmentation": SQUARE}, {"image_id": 2, "segmentation": "nonsense"}, images=images)
    truth = GroundTruth(path, [1])
    assert [annotation["image_id"] for annotation in truth.annotations("segm")] == [1]
    with pytest.raises(DataError, match=r"expected images among its 2, found \[3\]"):
        GroundTruth(path, [1, 3])
    with pytest.raises(DataError, match="found none"):
        GroundTruth(path, [])


def test_classes_are_told_apart_though_they_share_a_name(path: Path):
    categories = [{"id": 9, "name": "cell"}, {"id": 4, "name": "cell"}, {"id": 6, "name": "dirt"}, {"id": 7}]
    truth = GroundTruth(write(path, categories=categories))
    assert truth.classes == {4: "cell (4)", 6: "dirt", 7: "category (7)", 9: "cell (9)"}
    assert list(truth.classes) == [4, 6, 7, 9]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "a list under 'images', found NoneType"),
        ({"images": []}, "no images"),
        ({"categories": []}, "no categories"),
        ({"annotations": [{"id": 1, "image_id": 1}]}, r"annotations\[0\]: lacks category_id"),
        ({"images": [{"id": [1]}]}, r"images\[0\]: id is \[1\], expected a whole number"),
        ({"categories": [{"id": 4}, {"id": "5"}]}, r"categories\[1\]: id is '5', expected a whole number"),
        ({"images": [{"id": 1, "height": "10"}]}, r"images\[0\]: height is '10', expected pixels"),
        ({"categories": [{"id": 4, "name": 4}]}, r"categories\[0\]: name is 4, expected text"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 2]}]}, r"bbox is \[1, 2\], expected"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 4, "area": "x"}]}, "area is 'x', expected a number"),
        (
            {"annotations": [{"id": 1, "image_id": 1, "category_id": 4, "iscrowd": []}]},
            r"iscrowd is \[\], expected 0 or",
        ),
        ({"images": [{"id": 1}, {"id": 1}]}, "ids under 'images' are not unique, 1 is there"),
    ],
)
def test_a_broken_file_is_named(path: Path, changes, message):
    with pytest.raises(DataError, match=message) as caught:
        GroundTruth(write(path, **changes))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{", '"text"'])
def test_a_file_that_holds_no_annotations_is_named(path: Path, content):
    path.write_text(content)
    with pytest.raises(DataError, match=r"truth\.json: expected"):
        GroundTruth(path)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({}, "annotation 1: has no segmentation"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, "the mask is 5x5 pixels, but image 1 is 10x12"),
        ({"segmentation": {"counts": [25]}}, "can't be read"),
        ({"segmentation": {"counts": [20], "size": [10, 12]}}, "can't be read .*cover 20 pixels, but .* has 120"),
        ({"segmentation": {"counts": "ooooooo0", "size": [10, 12]}}, "can't be read .*a run covers 34359738367"),
        ({"segmentation": {"counts": [10**18], "size": [10**9, 10**9]}}, "can't be read .*a mask of 1000000000 x"),
        ({"segmentation": [{"counts": [10**9], "size": [10**5, 10**4]}]}, "can't be read .*a polygon is a list"),
    ],
)
def test_an_annotation_that_can_not_be_scored_is_named(path: Path, annotation, message):
    with pytest.raises(DataError, match=message):
        GroundTruth(write(path, annotation)).annotations("segm")


def test_id_zero_is_warned_of(path: Path):
    with pytest.warns(UserWarning, match="id 0"):
        GroundTruth(write(path, {"id": 0, "segmentation": SQUARE}))
