from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from junk import spoilt
from maskbench.data.coco import CocoFile, stored
from maskbench.data.photos import read_photo
from maskbench.data.runs import label_maps
from maskbench.errors import DataError


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Any], CocoFile]:
    def reader(content: Any) -> CocoFile:
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(content))
        return CocoFile(path)

    return reader


def test_images_and_categories_are_sorted_by_id(read: Callable, content: dict) -> None:
    file = read(content)
    assert list(file.records) == [7, 11, 30]
    assert file.categories == {4: "disc", 9: "star"}
    assert len(file) == 3
    assert file.records[11].size == (20, 30)


def test_annotations_stay_with_their_image(read: Callable, content: dict) -> None:
    file = read(content)
    assert file.annotations(7) == []
    assert [(each.category_id, each.crowd, each.area) for each in file.annotations(11)] == [
        (9, False, 6 * 7),
        (4, False, 7 * 15),
        (4, True, 40),
    ]
    assert [each.area for each in file.annotations(30)] == [600]
    assert file.counts(11) == ([9, 4], 1)
    assert file.counts(7) == ([], 0)


def break_(content: dict, path: str, value: Any) -> dict:
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    node: Any = content
    for step in steps:
        node = node[step]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("images", None, "needs a list `images`, but holds annotations, categories"),
        ("annotations", {}, "needs a list `annotations`, but it is no list"),
        ("images", [], "has no images"),
        ("categories", [], "has no categories"),
        ("images.1", 3, r"images\[1\] is 3"),
        ("images.1.width", None, r"images\[1\] \(id 7\) lacks `width`"),
        ("images.1.id", "7", r"`id` of images\[1\] is '7', expected int"),
        ("images.1.height", 0, "image 7 is 0 x 30 pixels"),
        ("images.1.height", 20_000_000, "image 7 is 20000000 x 30 pixels, and a photo may have 178956970; cut it"),
        ("images.1.id", True, r"`id` of images\[1\] is True, expected int"),
        ("images.1.id", 10**30, r"`id` of images\[1\] is 1000.*, expected int"),
        (
            "images.1.file_name",
            "../b.png",
            "`file_name` of image 7 is '../b.png', which climbs out of the image folder",
        ),
        ("images.1.file_name", "a/../../b.png", "climbs out of the image folder; name files below the image folder"),
        ("images.1.file_name", "/etc/passwd", "is '/etc/passwd', which lies wherever it likes"),
        ("images.1.file_name", "", "is '', which is no name of a file"),
        ("images.1.file_name", "a\0.png", "is no name of a file"),
        ("images.1.id", 11, "image id 11 occurs twice"),
        ("annotations.1.id", 5, "annotation id 5 occurs twice"),
        ("categories.1.id", 9, "category id 9 occurs twice"),
        ("annotations.0.image_id", 8, "annotation 5 belongs to image 8, which `images` does not list"),
        ("annotations.0.category_id", 1, r"annotation 5 has category 1, but there are 4, 9"),
        ("annotations.0.segmentation", None, r"annotations\[0\] \(id 5\) lacks `segmentation`"),
        ("annotations.0.segmentation", "polygon", "annotation 5 is 'polygon', expected polygons or an RLE"),
        ("annotations.0.segmentation", [], "annotation 5 has no polygon"),
        ("annotations.0.segmentation", [[1, 2, 3, 4]], "annotation 5 has .* at least three points"),
        ("annotations.0.segmentation", {"counts": [1]}, r"size None, but its image is \[height, width\] = \[20, 30\]"),
        ("annotations.0.segmentation", {"counts": [600], "size": 5}, "annotation 5 has an RLE of size 5, but"),
        ("annotations.0.segmentation", {"counts": "PP", "size": None}, "annotation 5 has an RLE of size None, but"),
        ("annotations.0.segmentation", {"counts": [600], "size": [30, 20]}, r"RLE of size \[30, 20\]"),
    ],
)
def test_a_broken_file_says_what_is_wrong_where(
    read: Callable, content: dict, path: str, value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(break_(content, path, value))
    assert "instances.json: " in str(caught.value)


@pytest.mark.parametrize(
    "segmentation",
    [
        [["a", 1, 2, 2, 3, 4]],
        {"size": [20, 30], "counts": [500]},
        {"size": [20, 30], "counts": "PPPP"},
        {"size": [20, 30], "counts": "é0"},
        {"size": [20, 30], "counts": [599.5, 0.5]},
        {"size": [20, 30], "counts": [10**40]},
    ],
)
def test_a_mask_that_cannot_be_decoded_names_its_annotation(read: Callable, content: dict, segmentation: Any) -> None:
    file = read(break_(content, "annotations.0.segmentation", segmentation))
    with pytest.raises(DataError, match="annotation 5 can't be decoded"):
        file.annotations(11)


@pytest.mark.filterwarnings("ignore")  # a warning is a fair answer too
def test_whatever_stands_in_the_file_is_read_or_named(read: Callable, content: dict, tmp_path: Path) -> None:
    """A thousand files with one value replaced or gone: no error but ours, and it begins with the file's name."""
    draw = random.Random(0)
    told = []
    for _ in range(1000):
        try:
            file = read(spoilt(content, draw))
            for image_id in file.records:
                file.counts(image_id)
                file.annotations(image_id)
        except DataError as error:
            told.append(str(error))
    assert len(told) > 300
    assert all(message.startswith(str(tmp_path / "instances.json")) for message in told)


def test_photos_lie_in_folders_and_behind_links(write: Callable, content: dict, tmp_path: Path) -> None:
    """As COCO's own do where several sources are one set; a link is the owner's."""
    for image, name in zip(content["images"], ("sub/deep/b b.png", "./a.png", "müll/ç.png"), strict=True):
        image["file_name"] = name
    root = tmp_path / "set"
    for folder in ("images/sub/deep", "images/müll"):
        (root / folder).mkdir(parents=True)
    write(content)
    (root / "images").rename(tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    for name in ("NFC", "NFD"):
        file = CocoFile(root / "annotations/instances_train.json")
        for record in file.records.values():
            assert read_photo(stored(root / "images", unicodedata.normalize(name, record.file_name))).shape == (
                20,
                30,
                3,
            )


def test_a_list_of_results_is_no_annotation_file(read: Callable) -> None:
    with pytest.raises(DataError, match="found a list at its top"):
        read([])


def test_no_json(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"cut.json: is no json"):
        CocoFile(tmp_path / "cut.json")
    with pytest.raises(DataError, match="can't be read"):
        CocoFile(tmp_path)
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"deep.json: is no json"):
        CocoFile(tmp_path / "deep.json")


def test_a_missing_file_lists_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "mine.json").touch()
    with pytest.raises(DataError, match=r"holds mine.json; set data.root"):
        CocoFile(tmp_path / "instances_train.json")
    with pytest.raises(DataError, match="there is no folder"):
        CocoFile(tmp_path / "annotations" / "instances_train.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no json file"):
        CocoFile(tmp_path / "empty" / "instances_train.json")


def test_the_real_coco_is_decoded_as_pycocotools_does(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "data" / "coco_slice" / "annotations" / "instances_val_all.json"
    file, reference = CocoFile(path), COCO(path)
    assert list(file.categories) == sorted(reference.cats)
    crowds = {each["image_id"] for each in reference.anns.values() if each["iscrowd"]}
    chosen = [*sorted(crowds)[:4], *list(file.records)[::20]]
    for image_id in chosen:
        expected = reference.imgToAnns[image_id]
        found = file.annotations(image_id)
        assert [each.crowd for each in found] == [bool(each["iscrowd"]) for each in expected]
        for annotation, each in zip(expected, found, strict=True):
            mask = label_maps([each.runs], file.records[image_id].size)
            np.testing.assert_array_equal(mask[0], reference.annToMask(annotation))
