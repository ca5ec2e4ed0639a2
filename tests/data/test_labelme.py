from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import exports
from disks import files_up_to
from exports import HEIGHT, WIDTH, corners, drawing, shape
from maskbench.data import folder
from maskbench.data.coco import CocoFile
from maskbench.data.labelme import convert
from maskbench.data.photos import read_photo
from maskbench.data.runs import label_maps
from maskbench.errors import ConfigError, DataError, StorageError


def masks(root: Path, split: str = "train") -> dict[str, list[tuple[str, np.ndarray]]]:
    """Class and mask of the objects of each photo, as the data room reads them."""
    file = CocoFile(root / "annotations" / f"instances_{split}.json")
    return {
        record.file_name: [
            (file.categories[each.category_id], label_maps([each.runs], record.size)[0] > 0)
            for each in file.annotations(image_id)
        ]
        for image_id, record in file.records.items()
    }


def filled(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def converted(tmp_path: Path, shapes: list[dict[str, Any]], **more: Any) -> list[tuple[str, np.ndarray]]:
    """The objects of one photo."""
    drawing(tmp_path / "source" / "a.json", 0, shapes, **more)
    convert(tmp_path / "source", tmp_path / "out")
    return masks(tmp_path / "out")["a.png"]


def test_shapes_become_masks(tmp_path: Path) -> None:
    painted = np.zeros((6, 4), bool)
    painted[2:, 1:] = True
    mask = exports.png(Image.fromarray(painted))
    shapes = [
        shape("key", corners((2, 3, 12, 9))),
        shape("coin", [[30.0, 20.0], [20.0, 10.0]], "rectangle"),
        shape("coin", [[50, 30], [53, 35]], "mask", mask=mask),
    ]
    found = dict(zip(["polygon", "rectangle", "mask"], converted(tmp_path, shapes), strict=True))
    assert [label for label, _ in found.values()] == ["key", "coin", "coin"]
    np.testing.assert_array_equal(found["polygon"][1], filled(2, 3, 12, 9))
    np.testing.assert_array_equal(found["rectangle"][1], filled(20, 10, 30, 20))
    np.testing.assert_array_equal(found["mask"][1], filled(51, 32, 54, 36))


def test_a_circle_is_round(tmp_path: Path) -> None:
    ((_, mask),) = converted(tmp_path, [shape("coin", [[30.0, 24.0], [30.0, 34.0]], "circle")])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(x - 30, y - 24)
    assert mask[distance < 9].all()
    assert not mask[distance > 11].any()
    assert mask.sum() == pytest.approx(np.pi * 100, rel=0.03)


def test_a_mask_is_cut_where_the_photo_ends(tmp_path: Path) -> None:
    mask = exports.png(Image.new("L", (20, 20), 255))
    corner = shape("coin", [[-10, -15], [9, 4]], "mask", mask=mask)
    other = shape("coin", [[WIDTH - 5, HEIGHT - 5], [WIDTH + 14, HEIGHT + 14]], "mask", mask=mask)
    found = [pixels for _, pixels in converted(tmp_path, [corner, other])]
    np.testing.assert_array_equal(found[0], filled(0, 0, 10, 5))
    np.testing.assert_array_equal(found[1], filled(WIDTH - 5, HEIGHT - 5, WIDTH, HEIGHT))


def test_shapes_of_one_label_and_group_are_one_object(tmp_path: Path) -> None:
    mask = exports.png(Image.new("1", (4, 4), 1))
    shapes = [
        shape("coin", corners((0, 0, 10, 10)), group_id=1),
        shape("key", corners((0, 20, 10, 30)), group_id=1),
        shape("coin", corners((20, 0, 30, 10)), group_id=1),
        shape("key", [[20, 20], [23, 23]], "mask", mask=mask, group_id=1),
        shape("coin", corners((40, 0, 50, 10))),
        shape("coin", corners((50, 0, 60, 10))),
    ]
    found = converted(tmp_path, shapes)
    assert [label for label, _ in found] == ["coin", "key", "coin", "coin"]
    np.testing.assert_array_equal(found[0][1], filled(0, 0, 10, 10) | filled(20, 0, 30, 10))
    np.testing.assert_array_equal(found[1][1], filled(0, 20, 10, 30) | filled(20, 20, 24, 24))
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [isinstance(each["segmentation"], list) for each in content["annotations"]] == [True, False, True, True]
    assert content["categories"] == [{"id": 1, "name": "coin"}, {"id": 2, "name": "key"}]
    assert [each["area"] for each in content["annotations"]] == [200, 116, 100, 100]


def test_what_encloses_nothing_is_left_out_and_told(tmp_path: Path) -> None:
    shapes = [
        shape("coin", corners((0, 0, 10, 10))),
        shape("coin", [[1.0, 1.0], [5.0, 5.0]], "line"),
        shape("coin", [[1.0, 1.0]], "point"),
        shape("__ignore__", corners((0, 0, 10, 10))),
        shape("coin", [[1.0, 1.0], [1.1, 1.0], [1.0, 1.1]]),
    ]
    drawing(tmp_path / "source" / "a.json", 0, shapes)
    told = str(convert(tmp_path / "source", tmp_path / "out"))
    assert "instances_train.json: 1 photos, 1 instances, 0 crowds" in told
    assert "left out: 1 x __ignore__, 1 x line, 1 x point, 1 x shape without a pixel" in told
    assert "--val-share 0.2" in told


def test_photos_come_from_beside_the_json_or_from_within(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    own = [shape("coin", corners((0, 0, 10, 10)))]
    drawing(source / "deep" / "a.json", 1, own)
    drawing(source / "b.json", 2, own, within=True)
    drawing(source / "c.json", 1, own, imagePath=r"deep\a.png")  # as on Windows
    convert(source, out)
    assert sorted(masks(out)) == ["b.png", "c.png", "deep/a.png"]
    assert (out / "images/deep/a.png").read_bytes() == (source / "deep/a.png").read_bytes()
    np.testing.assert_array_equal(read_photo(out / "images/b.png"), np.asarray(exports.photo(2)))
    np.testing.assert_array_equal(read_photo(out / "images/c.png"), np.asarray(exports.photo(1)))


def test_a_turned_photo_is_written_as_it_was_shown(tmp_path: Path) -> None:
    """EXIF's 6 is a quarter turn: what is stored at the top is shown at the right."""
    drawing(tmp_path / "source" / "a.json", 0, [], imageHeight=WIDTH, imageWidth=HEIGHT)
    tags = Image.Exif()
    tags[0x0112] = 6
    exports.photo(3).save(tmp_path / "source" / "a.png", exif=tags)
    shapes = [shape("coin", corners((0, 0, 10, 20)))]
    path = drawing(tmp_path / "source" / "b.json", 0, shapes)
    path.write_text(
        path.read_text().replace("b.png", "a.png").replace(f'"imageHeight": {HEIGHT}', '"imageHeight": null')
    )
    convert(tmp_path / "source", tmp_path / "out")
    shown = np.rot90(np.asarray(exports.photo(3)), -1)
    np.testing.assert_array_equal(read_photo(tmp_path / "out/images/b.png"), shown)
    file = CocoFile(tmp_path / "out/annotations/instances_train.json")
    assert {record.size for record in file.records.values()} == {(WIDTH, HEIGHT)}


def test_a_turned_photo_in_cmyk_is_written_in_rgb(tmp_path: Path) -> None:
    drawing(
        tmp_path / "source" / "a.json", 0, [shape("coin", corners((0, 0, 10, 20)))], imageData=None, imageHeight=None
    )
    tags = Image.Exif()
    tags[0x0112] = 3
    exports.photo(3).convert("CMYK").save(tmp_path / "source" / "a.png", "JPEG", exif=tags)
    convert(tmp_path / "source", tmp_path / "out")
    shown = np.asarray(exports.photo(3), int)[::-1, ::-1]
    assert np.abs(read_photo(tmp_path / "out/images/a.png") - shown).mean() < 20


def test_folders_of_splits_become_splits_or_a_share_does(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c"):
        drawing(tmp_path / "source" / f"{name}.json", 0, [shape("coin", corners((0, 0, 10, 10)))])
    summary = convert(tmp_path / "source", tmp_path / "out", val_share=0.5)
    assert {split: len(entries) for split, entries in summary.splits.items()} == {"train": 1, "val": 1, "test": 1}
    assert list(masks(tmp_path / "out", "test")) == ["test/c.png"]
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        convert(tmp_path / "source", tmp_path / "again", val_share=1.0)
    (tmp_path / "source" / "test").rename(tmp_path / "source" / "val")
    with pytest.raises(ConfigError, match="has one"):
        convert(tmp_path / "source", tmp_path / "again", val_share=0.5)
    drawing(tmp_path / "source" / "d.json", 0, [])
    with pytest.raises(DataError, match=r"d\.json: lies in no folder train, val or test"):
        convert(tmp_path / "source", tmp_path / "again")


COIN = corners((0, 0, 10, 10))


@pytest.mark.parametrize(
    ("shapes", "more", "told"),
    [
        ([{"label": 3, "points": COIN}], {}, r"shapes\[0\] is .*, expected a `label` and `points` \[\[x, y\], …\]"),
        ([shape("coin", [[1, "2"]])], {}, r"shapes\[0\] is "),
        ([shape("coin", [[9, 9], [math.nan, 9]], "circle")], {}, r"shapes\[0\] is "),
        ([shape("coin", [[math.inf, 9], [9, 9]], "rectangle")], {}, r"shapes\[0\] is "),
        ([shape("coin", [*COIN, [10**400, 9]])], {}, r"shapes\[0\] is "),
        (
            [shape("coin", [[9, 9], [1e9, 9]], "circle")],
            {},
            rf"a circle, has a radius of 1e\+09, .* {HEIGHT} x {WIDTH}",
        ),
        ([shape("coin", COIN, group_id=[1])], {}, r"shapes\[0\] has the group_id \[1\], expected a number"),
        ([shape("coin", COIN), shape("coin", COIN, "cube")], {}, r"shapes\[1\] is a cube, .* draw it as a polygon"),
        ([shape("coin", COIN[:2])], {}, "a polygon, has 2 points, expected 3"),
        ([shape("coin", COIN[:1], "circle")], {}, "a circle, has 1 points, expected 2"),
        ([shape("coin", COIN[:2], "mask")], {}, "is a mask without a `mask`"),
        ([shape("coin", COIN[:2], "mask", mask="?")], {}, "holds an image that is no base64"),
        ([shape("coin", COIN[:2], "mask", mask="aGk=")], {}, r"the mask of shapes\[0\] can't be read"),
        ([shape("coin", [[0, 0], [1e9, 0], [0, 1e9]])], {}, r"an object `coin` can't be drawn: a polygon reaches to"),
        ([], {"imageHeight": 5}, rf"says that its photo has 5 x {WIDTH} pixels .*, but it has {HEIGHT} x {WIDTH}"),
        ([], {"imagePath": "nowhere.png"}, r"neither at imagePath \(nowhere\.png\) nor within"),
        ([], {"imagePath": "b.json"}, r"its photo .*b\.json can't be read"),
        ([], {}, r"source: no shape with an area in any of 2 files, such as "),
    ],
)
def test_what_can_not_be_converted_is_named(
    shapes: list[dict[str, Any]], more: dict[str, Any], told: str, tmp_path: Path
) -> None:
    drawing(tmp_path / "source" / "b.json", 0, [])
    drawing(tmp_path / "source" / "a.json", 0, shapes, **more)
    with pytest.raises(DataError, match=told):
        convert(tmp_path / "source", tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_folders_of_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "source").mkdir()
    with pytest.raises(DataError, match="source: holds no json file"):
        convert(tmp_path / "source", tmp_path / "out")
    (tmp_path / "source/a.json").write_text("[]")
    with pytest.raises(DataError, match=r"a\.json: has no list `shapes`, so it is none of labelme's files"):
        convert(tmp_path / "source", tmp_path / "out")
    (tmp_path / "source/a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is no json that can be read"):
        convert(tmp_path / "source", tmp_path / "out")


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(exports.labelme(tmp_path / "source"), tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_is_told_by_the_folder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    source = exports.labelme(tmp_path / "source")
    with files_up_to(1000), pytest.raises(StorageError, match=r"/out: can't be written"):
        convert(source, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_the_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable,
            "-m",
            "maskbench.data.labelme",
            str(tmp_path / "source"),
            str(tmp_path / "out"),
            *arguments,
        ]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    exports.labelme(tmp_path / "source")
    first, second = run("--val-share", "0.5"), run()
    assert (first.returncode, second.returncode) == (0, 1)
    assert first.stdout == (
        "annotations/instances_train.json: 3 photos, 6 instances, 0 crowds\n"
        "annotations/instances_val.json: 3 photos, 6 instances, 0 crowds\n"
    )
    assert second.stderr == f"{tmp_path}/out: is there already and not empty; name a new folder, or remove it\n"
