from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as rle_codec
import pytest
from PIL import Image

from maskbench.data import folder
from maskbench.data.coco import CocoFile
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.labelmaps import THINGS, convert, encode_values, read_labels
from maskbench.data.photos import read_photo
from maskbench.data.runs import label_maps
from maskbench.errors import ConfigError, DataError

Save = Callable[..., Path]

BLANK = np.zeros((20, 30), np.uint8)
LEAVES = BLANK.copy()
LEAVES[2:8, 3:10] = 1
LEAVES[2:8, 10:20] = 7
LEAVES[15:, 25:] = 1
"""Two instances that touch, the first in two pieces."""


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves pixels, of a photo random ones, below the folder `source`."""

    def write(name: str, pixels: np.ndarray | None = None, size: tuple[int, int] = (20, 30)) -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def source(tmp_path: Path, save: Save) -> Path:
    """A folder of CVPPP's layout with one plant."""
    save("A1/plant001_rgb.png")
    save("A1/plant001_label.png", LEAVES)
    return tmp_path / "source"


def painted(root: Path, split: str = "train") -> dict[str, np.ndarray]:
    """The label map of each photo as the data room reads it: ascending values become 1, 2, …"""
    file = CocoFile(root / "annotations" / f"instances_{split}.json")
    maps = {}
    for image_id, record in file.records.items():
        drawn = label_maps([annotation.runs for annotation in file.annotations(image_id)], record.size)
        assert len(drawn) <= 1, "instances of a label map don't overlap"
        maps[record.file_name] = drawn[0] if drawn else np.zeros(record.size, np.uint16)
    return maps


def ranks(labels: np.ndarray) -> np.ndarray:
    """Ascending values as 1, 2, …, and 0 as it is."""
    values = np.unique(labels[labels > 0])
    return np.where(labels > 0, np.searchsorted(values, labels) + 1, 0)


def random_labels(seed: int) -> np.ndarray:
    """Up to 400 instances, many of them in several pieces, of up to 200 x 200 pixels and of 8, 16 or 32 bits."""
    rng = np.random.default_rng(seed)
    kind = (np.uint8, np.uint16, np.int32)[seed % 3]
    count = min(int(rng.choice([0, 1, rng.integers(2, 400), 400])), np.iinfo(kind).max)
    values = rng.choice(min(np.iinfo(kind).max, 10**6), count, replace=False) + 1
    cells = rng.integers(0, count + 1, rng.integers(1, 41, 2))
    blocks = np.kron(cells, np.ones(rng.integers(1, 6, 2), dtype=int))
    return np.append(0, values)[blocks].astype(kind)


@pytest.mark.parametrize("seed", range(24))
def test_label_maps_come_back_pixel_by_pixel(seed: int, save: Save, tmp_path: Path) -> None:
    labels = random_labels(seed)
    suffix = "tif" if labels.dtype == np.int32 else "png"
    save(f"masks/a.{suffix}", labels)
    save("images/a.jpg", size=labels.shape)
    save("masks/b.png", np.ones((1, 1), np.uint8))  # so that there is an instance
    save("images/b.png", size=(1, 1))
    convert(tmp_path / "source", tmp_path / "out")
    np.testing.assert_array_equal(painted(tmp_path / "out")["a.jpg"], ranks(labels))


@pytest.mark.parametrize("seed", range(12))
def test_run_lengths_are_those_of_each_mask(seed: int) -> None:
    labels = random_labels(seed)
    encoded = encode_values(labels)
    assert list(encoded) == np.unique(labels[labels > 0]).tolist()
    for value, rle in encoded.items():
        np.testing.assert_array_equal(rle_codec.decode(rle), labels == value)
        assert rle_codec.area(rle) == (labels == value).sum()


def test_an_instance_in_two_pieces_is_one(source: Path, tmp_path: Path) -> None:
    summary = convert(source, tmp_path / "out", category="leaf")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "leaf"}]
    assert content["images"] == [{"id": 1, "file_name": "A1/plant001.png", "height": 20, "width": 30}]
    assert [annotation["area"] for annotation in content["annotations"]] == [6 * 7 + 5 * 5, 6 * 10]
    assert [annotation["bbox"] for annotation in content["annotations"]] == [[3, 2, 27, 18], [10, 2, 10, 6]]
    assert "instances_train.json: 1 photos, 2 instances" in str(summary)
    assert "--val-share" in str(summary)


def test_photos_are_copied_as_they_are(source: Path, tmp_path: Path) -> None:
    photo = tmp_path / "out/images/A1/plant001.png"
    convert(source, tmp_path / "out")
    assert photo.read_bytes() == (source / "A1/plant001_rgb.png").read_bytes()
    assert read_photo(photo).shape == cv2.imread(str(photo)).shape == (20, 30, 3)


def test_a_palette_shows_numbers(source: Path, tmp_path: Path) -> None:
    """The label maps of CVPPP are palette images."""
    image = Image.fromarray(LEAVES)
    image.putpalette([0, 0, 0, *range(255, 231, -1)])  # makes a palette image of it
    image.save(source / "A1/plant001_label.png")
    convert(source, tmp_path / "out")
    np.testing.assert_array_equal(painted(tmp_path / "out")["A1/plant001.png"], ranks(LEAVES))


def test_cityscapes_has_classes_groups_and_stuff(save: Save, tmp_path: Path) -> None:
    values = np.full((20, 30), 7, np.int32)  # road
    values[:5, :5] = 26001  # two cars
    values[:5, 5:10] = 26002
    values[5:10, :5] = 24000  # a person
    values[5:10, 5:10] = 24  # a group of them
    values[10:15, :5] = 29000  # a caravan
    for split in ("train", "val"):
        save(f"leftImg8bit/{split}/ulm/ulm_{split}_000019_leftImg8bit.png")
        save(f"gtFine/{split}/ulm/ulm_{split}_000019_gtFine_instanceIds.png", values.astype(np.uint16))
        save(f"gtFine/{split}/ulm/ulm_{split}_000019_gtFine_labelIds.png", BLANK)
    summary = convert(tmp_path / "source", tmp_path / "out")
    file = CocoFile(tmp_path / "out/annotations/instances_val.json")
    assert file.categories == THINGS
    ((image_id, record),) = file.records.items()
    assert record.file_name == "ulm_val_000019.png"
    found = [(each.category_id, each.crowd, each.area) for each in file.annotations(image_id)]
    assert found == [(24, True, 25), (24, False, 25), (26, False, 25), (26, False, 25)]
    assert "instances_val.json: 1 photos, 3 instances, 1 crowds" in str(summary)


def test_a_value_that_cityscapes_does_not_know_is_named(save: Save, tmp_path: Path) -> None:
    save("a_leftImg8bit.png")
    save("a_gtFine_instanceIds.png", np.full((20, 30), 7001, np.uint16))
    with pytest.raises(DataError, match=r"a_gtFine_instanceIds\.png: has the value 7001, an instance of class 7"):
        convert(tmp_path / "source", tmp_path / "out")


@pytest.mark.parametrize("names", ["{split}/images/{name}", "images/{split}/{name}"])
def test_folders_of_splits_become_splits(names: str, save: Save, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for number in range(2):
            name = names.format(split=split, name=number)
            save(f"{name}.jpg")
            save(name.replace("images", "masks") + ".tif", LEAVES.astype(np.uint16))
    save("train/images/lonely.png")
    summary = convert(tmp_path / "source", tmp_path / "out")
    ids: set[int] = set()
    for split in ("train", "val", "test"):
        file = CocoFile(tmp_path / "out/annotations" / f"instances_{split}.json")
        assert [record.file_name for record in file.records.values()] == [f"{split}/0.jpg", f"{split}/1.jpg"]
        ids |= set(file.records)
    assert ids == {1, 2, 3, 4, 5, 6}, "no photo of a split has the id of another's"
    assert "left out, since they have no label map: train/images/lonely.png\n" in f"{summary}\n"
    assert "--val-share" not in str(summary)


def test_a_share_is_kept_apart_and_the_data_module_reads_it(save: Save, tmp_path: Path) -> None:
    for number in range(10):
        save(f"images/{number}.png", size=(32, 32))
        save(f"masks/{number}.png", np.pad(LEAVES, ((0, 12), (0, 2))))
    convert(tmp_path / "source", tmp_path / "out", val_share=0.2)
    data = CocoDataModule(tmp_path / "out", batch=2)
    assert [len(data.image_ids(split)) for split in ("train", "tune", "test")] == [7, 1, 2]
    assert data.classes == ("object",)
    batch = next(iter(data.train_dataloader()))
    assert [len(target) for target in batch.targets] == [2, 2]


def test_a_share_is_taken_from_train_alone(save: Save, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c", "test/d"):
        save(f"{name}_rgb.png")
        save(f"{name}_label.png", LEAVES)
    summary = convert(tmp_path / "source", tmp_path / "out", val_share=0.5)
    assert {split: len(entries) for split, entries in summary.splits.items()} == {"train": 1, "val": 1, "test": 2}
    assert {entry.record.file_name for entry in summary.splits["test"]} == {"test/c.png", "test/d.png"}


def test_masks_of_the_foreground_are_suspected(save: Save, tmp_path: Path) -> None:
    save("images/a.png")
    save("masks/a.png", np.where(LEAVES, 255, 0).astype(np.uint8))
    assert "are these masks of the foreground" in str(convert(tmp_path / "source", tmp_path / "out"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LEAVES[:10], r"has 10 x 30 pixels \(height x width\), but its photo .*plant001_rgb\.png has 20 x 30"),
        (np.stack([LEAVES] * 3, axis=-1), r"holds pixels of the kind RGB, expected .* integers; export the numbers"),
        (LEAVES > 0, "holds pixels of the kind 1, expected"),
    ],
)
def test_label_maps_that_do_not_fit_are_named(
    labels: np.ndarray, message: str, source: Path, save: Save, tmp_path: Path
) -> None:
    path = save("A1/plant001_label.png", labels)
    with pytest.raises(DataError, match=f"{path}: {message}"):
        convert(source, tmp_path / "out")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source"], "nothing is left behind"


def test_label_maps_that_hold_no_numbers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(LEAVES.astype(np.float32)).save(path)
    with pytest.raises(DataError, match="holds pixels of the kind F"):
        read_labels(path)
    Image.fromarray(LEAVES.astype(np.int32) - 1).save(path)
    with pytest.raises(DataError, match="has the value -1, expected 0 for the background"):
        read_labels(path)
    Image.fromarray(LEAVES).save(path, save_all=True, append_images=[Image.fromarray(LEAVES)])
    with pytest.raises(DataError, match="holds 2 images, expected one"):
        read_labels(path)
    path.write_text("no image")
    with pytest.raises(DataError, match=r"a\.tif: is no label map that can be read"):
        read_labels(path)


def test_what_does_not_belong_together_is_named(source: Path, save: Save, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lonely = save("A1/plant002_label.png", LEAVES)
    with pytest.raises(DataError, match=rf"{lonely}: no photo .* expected NAME_rgb\.png beside NAME_label\.png"):
        convert(source, out)
    photo = save("A1/plant002_rgb.png")
    save("A1/plant002_rgb.jpg")
    with pytest.raises(DataError, match=r"plant002_rgb\.png: is called as .*plant002_rgb\.jpg is"):
        convert(source, out)
    (photo.parent / "plant002_rgb.jpg").unlink()
    shutil.copytree(source / "A1", source / "train")
    with pytest.raises(DataError, match=r"A1/plant001_label\.png: lies in no folder train, val or test"):
        convert(source, out)
    save("masks/a.png", LEAVES)
    with pytest.raises(DataError, match=r"found CVPPP \(A1/plant001_label\.png\) and folders \(masks/a\.png\)"):
        convert(source, out)


def test_sources_of_nothing_are_named(source: Path, save: Save, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: expected label maps of one layout \(CVPPP: .*\), found none"):
        convert(tmp_path / "empty", tmp_path / "out")
    save("A1/plant001_label.png", BLANK)
    with pytest.raises(DataError, match=r"source: no instance in any of 1 label maps, such as .*plant001_label\.png"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert(source, out)
    before = sorted(out.rglob("*"))
    with pytest.raises(DataError, match="out: is there already"):
        convert(source, out)
    assert sorted(out.rglob("*")) == before


def test_an_interruption_leaves_nothing_behind(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["source"]


def test_settings_that_the_source_settles_are_refused(source: Path, save: Save, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1, found 1"):
        convert(source, tmp_path / "out", val_share=1.0)
    (source / "A1").rename(source / "val")
    with pytest.raises(ConfigError, match=r"val_share=0\.2 .*val/plant001_label\.png is of it"):
        convert(source, tmp_path / "out", val_share=0.2)
    shutil.rmtree(source)
    save("a_leftImg8bit.png")
    save("a_instanceIds.png", np.full((20, 30), 24000, np.uint16))
    with pytest.raises(ConfigError, match="category=leaf is for label maps without classes"):
        convert(source, tmp_path / "out", category="leaf")


def test_the_command(source: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "maskbench.data.labelmaps", str(source), str(tmp_path / "out"), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)

    first, second = run("--category", "leaf"), run()
    assert (first.returncode, second.returncode) == (0, 1)
    assert first.stdout.startswith("label maps of the layout CVPPP\n")
    assert second.stderr == f"{tmp_path}/out: is there already and not empty; name a new folder, or remove it\n"
