from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import exports
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.layouts import Place, Places, find, find_test
from maskbench.errors import ConfigError, DataError

ONE = {"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}], "annotations": [], "categories": []}


def place(root: Path, **given: Any) -> Places:
    return find(root, given)


def laid(root: Path, *files: str, images: str = "images/a.png", content: dict[str, Any] = ONE) -> Path:
    """A folder of annotation files that all name one photo."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
    (root / images).parent.mkdir(parents=True, exist_ok=True)
    (root / images).touch()
    return root


# What tools export ----------------------------------------------------------------------------------------------------


def test_roboflow_has_three_splits(tmp_path: Path) -> None:
    found = place(exports.roboflow(tmp_path))
    assert found.train == Place("train/_annotations.coco.json", "train")
    assert found.tune == Place("valid/_annotations.coco.json", "valid")
    assert (found.test, found.test_share) == (Place("test/_annotations.coco.json", "test"), None)


def test_of_two_splits_the_second_is_judged(tmp_path: Path) -> None:
    found = place(exports.roboflow(tmp_path, splits=("train", "valid")))
    assert (found.test, found.tune) == (Place("valid/_annotations.coco.json", "valid"), None)


@pytest.mark.parametrize("images", ["images/{}", "images", "{}"])
def test_cvat_has_subsets_or_one(tmp_path: Path, images: str) -> None:
    one = place(exports.cvat(tmp_path / "task", images=images), test_share=0.2)
    assert one.train == one.test == Place("annotations/instances_default.json", images.format("default"))
    assert (one.tune, one.test_share) == (None, 0.2)
    several = place(exports.cvat(tmp_path / "project", ("Train", "Validation"), images=images), test_share=0.2)
    assert several.train == Place("annotations/instances_Train.json", images.format("Train"))
    assert several.test == Place("annotations/instances_Validation.json", images.format("Validation"))
    assert several.test_share is None


@pytest.mark.parametrize("windows", [False, True])
def test_label_studio_has_names_with_their_folder(tmp_path: Path, windows: bool) -> None:
    root = exports.label_studio(tmp_path, windows=windows)
    assert place(root, test_share=0.2).train == Place("result.json", ".")
    data = CocoDataModule(root, test_share=0.2)
    assert all(data.image_path("train", image_id).is_file() for image_id in data.image_ids("train"))


def test_labelme2coco_has_jpegs(tmp_path: Path) -> None:
    assert place(exports.labelme2coco(tmp_path), test_share=0.2).train == Place("annotations.json", ".")


def test_coco_is_found_as_it_is_unpacked(tmp_path: Path) -> None:
    for task in ("instances", "captions", "person_keypoints"):
        laid(
            tmp_path, *(f"annotations/{task}_{split}2017.json" for split in ("train", "val")), images="train2017/a.png"
        )
    laid(tmp_path, images="val2017/a.png")
    found = place(tmp_path)
    assert found.train == Place("annotations/instances_train2017.json", "train2017")
    assert found.test == Place("annotations/instances_val2017.json", "val2017")


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        (["annotations/instances_train.json", "annotations/instances_val.json"], 0, 1),
        (["train.json", "test.json"], 0, 1),
        (["annotations/cells_coco_train.json", "annotations/cells_coco_val.json"], 0, 1),
        (["train/labels.json", "test/labels.json"], 0, 1),
        (["annotations/instances_train.json", "annotations/instances_train_all.json", "annotations/val.json"], 0, 2),
        (["annotations/instances_train.json", "annotations/instances_train2014.json", "val.json"], 0, 2),
        (["all.json", "test.json"], 0, 1),
        (["annotations/instances_default.json", "annotations/labels_default.json", "val.json"], 0, 2),
        (["Annotations/train.json", "Annotations/val.json"], 0, 1),
    ],
)
def test_a_split_is_a_word_of_the_name(tmp_path: Path, files: list[str], train: int, test: int) -> None:
    found = place(laid(tmp_path, *files))
    assert (found.train.annotations, found.test.annotations) == (files[train], files[test])
    assert found.train.images == found.test.images == "images"


# What is said wins ----------------------------------------------------------------------------------------------------


def test_settings_win_and_where_they_say_all_nothing_is_looked_for(tmp_path: Path) -> None:
    given = {f"{split}_{kind}": f"{split}/{kind}" for split in ("train", "test") for kind in ("annotations", "images")}
    found = find(tmp_path / "nowhere", given)
    assert (found.train, found.test) == (
        Place("train/annotations", "train/images"),
        Place("test/annotations", "test/images"),
    )
    laid(tmp_path, "annotations/instances_train.json", "annotations/instances_val.json", "other.json")
    assert place(tmp_path, train_annotations="other.json").train.annotations == "other.json"
    assert place(tmp_path, test_annotations="other.json").test.annotations == "other.json"
    assert place(tmp_path, test_images="elsewhere").test.images == "elsewhere"


def test_where_a_setting_says_it_nothing_else_may_be_meant(tmp_path: Path) -> None:
    laid(tmp_path, "a.json", "b.json", "val.json")
    assert place(tmp_path, train_annotations="b.json").test.annotations == "val.json"


def test_a_file_for_tuning_is_not_judged(tmp_path: Path) -> None:
    exports.roboflow(tmp_path, splits=("train", "valid"))
    with pytest.raises(DataError, match=r"no annotations are for testing, .*data\.test_share=0\.2"):
        place(tmp_path, tune_annotations="valid/_annotations.coco.json")


def test_tuning_is_on_the_images_of_training_where_both_folders_have_them(tmp_path: Path) -> None:
    laid(tmp_path, "train.json", "tune/a.json", "test.json", images="tune/a.png")
    laid(tmp_path, images="images/a.png")
    assert place(tmp_path, tune_annotations="tune/a.json").tune == Place("tune/a.json", "images")


@pytest.mark.parametrize("export", [exports.roboflow, exports.cvat, exports.label_studio, exports.labelme2coco])
def test_what_is_found_as_settings_is_found_again(tmp_path: Path, export: Any) -> None:
    """A trial keeps them, whatever comes into the folder later."""
    found = place(export(tmp_path), test_share=0.2)
    laid(
        tmp_path,
        "annotations/instances_train.json",
        "annotations/instances_val.json",
        "annotations/instances_test.json",
    )
    assert place(tmp_path, **found.settings()) == found


def test_a_share_goes_with_the_file_that_is_trained_on(tmp_path: Path) -> None:
    laid(tmp_path, "annotations/instances_train.json", "annotations/instances_val.json")
    train = "annotations/instances_train.json"
    assert place(tmp_path, test_share=0.2).test_share is None
    assert place(tmp_path, test_share=0.2, test_annotations=train).test_share == 0.2
    for share in (0.0, 1.0, -1):
        with pytest.raises(ConfigError, match=rf"data\.test_share is a share .*, found {share}"):
            place(tmp_path, test_share=share)


# What is judged alone -------------------------------------------------------------------------------------------------


def test_nothing_need_be_there_to_train_on(tmp_path: Path) -> None:
    laid(tmp_path, "annotations/instances_val.json")
    judged = Place("annotations/instances_val.json", "images")
    assert find_test(tmp_path, {"test_share": 0.2}) == Places(judged, judged, None, None)
    (tmp_path / "annotations/instances_val.json").rename(tmp_path / "all.json")
    judged = Place("all.json", "images")
    assert find_test(tmp_path, {"test_share": 0.2}) == Places(judged, judged, None, 0.2)
    (tmp_path / "all.json").unlink()
    with pytest.raises(DataError, match="no annotations to train on"):
        find_test(tmp_path, {})


def test_the_file_that_is_trained_on_is_judged_with_its_own_images(tmp_path: Path) -> None:
    laid(tmp_path, "all.json", images="elsewhere/a.png")
    given = {"train_annotations": "all.json", "train_images": "elsewhere", "test_share": 0.2}
    judged = Place("all.json", "elsewhere")
    assert find(tmp_path, given) == find_test(tmp_path, given) == Places(judged, judged, None, 0.2)
    assert find_test(tmp_path, {**given, "test_images": "other"}).test == Place("all.json", "other")


# What can't be told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["images/a.json"], "no annotations to train on; expected .* found images/; name the files"),
        (["a.json", "b.json", "val.json"], "a.json, b.json may each be the annotations of train; set data.train_annot"),
        (["train/a.json", "train/b.json"], "train/a.json, train/b.json may each be the annotations of train"),
        (["annotations/instances_val.json"], "no annotations to train on; .* found annotations/instances_val.json"),
        (["annotations/instances_train.json"], "annotations/instances_train.json is all there is to train on"),
    ],
)
def test_what_may_be_meant_is_named(tmp_path: Path, files: list[str], told: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}: {told}"):
        place(laid(tmp_path, *files))


def test_a_folder_that_is_none_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; data\.root names"):
        place(tmp_path / "nowhere")
    with pytest.raises(DataError, match="but it is empty; name the files"):
        place(tmp_path)
    exports.labelme(tmp_path)
    with pytest.raises(DataError, match=r"found tray 0\.json, .*python -m maskbench\.data\.labelme SOURCE OUT"):
        place(tmp_path)


def test_what_is_no_annotation_file_stands_in_no_ones_way(tmp_path: Path) -> None:
    laid(tmp_path, "mine.json")
    laid(tmp_path, "package.json", "empty.json", content={"name": "x"})
    (tmp_path / "empty.json").write_text("")
    assert place(tmp_path, test_share=0.5).train.annotations == "mine.json"


def test_images_that_lie_nowhere_or_twice_are_told(tmp_path: Path) -> None:
    laid(tmp_path, "train.json", "val.json", images="images/a.png")
    laid(tmp_path, images="data/a.png")
    told = r"train\.json: its first image, a\.png, lies in each of images, data; set data\.train_images"
    with pytest.raises(DataError, match=told):
        place(tmp_path)
    for name in ("images/a.png", "data/a.png"):
        (tmp_path / name).unlink()
    with pytest.raises(
        DataError, match=r"a\.png, lies in none of the folders \., images, data; set data\.train_images"
    ):
        place(tmp_path)
    (tmp_path / "data").rmdir()
    assert place(tmp_path).train.images == "images", "where one folder is left its reader says what is missing"
