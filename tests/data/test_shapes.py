from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pycocotools.mask as rle_codec
import pytest
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO

from maskbench.data import shapes
from maskbench.data.shapes import Shapes, draw, png
from maskbench.errors import ConfigError, StorageError

FEW = {"images": 12, "val_images": 5, "size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(cache=tmp_path_factory.mktemp("cache"), **FEW)


def test_the_same_bytes_on_every_machine(folder: Path) -> None:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        digest.update(path.read_bytes())
    assert digest.hexdigest()[:16] == "dc03e22beb4765c8"


def test_the_default_is_the_calibrated_set() -> None:
    default = Shapes()
    assert (default.images, default.val_images, default.size) == (2000, 200, 128)
    assert (default.objects, default.radius, default.hue) == ((2, 5), (0.10, 0.22), "class")
    assert default.classes == ("disc", "rectangle", "triangle")


def test_the_config_states_every_default(root: Path) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(root / "conf" / "data" / "shapes.yaml").root)
    settings = {name: value for name, value in stated.items() if not name.startswith("_") and name != "cache"}
    assert Shapes(**settings) == Shapes()
    assert set(settings) == {field.name for field in fields(Shapes)}


def test_pycocotools_reads_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(folder / "annotations" / "instances_train.json")
    assert len(coco.imgs) == 12
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == rle_codec.toBbox(rle_codec.encode(np.asfortranarray(mask))).tolist()
        assert isinstance(annotation["segmentation"]["counts"], list) == bool(annotation["iscrowd"])


def test_one_crowd_in_each_split_and_ids_with_gaps(folder: Path) -> None:
    seen: set[int] = set()
    for split in ("train", "val"):
        content = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
        assert sum(annotation["iscrowd"] for annotation in content["annotations"]) == 1
        for kind in ("images", "annotations", "categories"):
            ids = [record["id"] for record in content[kind]]
            assert min(ids) > 1
            assert len(ids) == len(set(ids)) < max(ids) - min(ids)
        images = {image["id"] for image in content["images"]}
        assert not images & seen
        seen |= images
    assert len(list((folder / "images").iterdir())) == 17


def test_it_is_drawn_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_draw_into", lambda *_: pytest.fail("drawn again"))
    assert draw(cache=folder.parent, **FEW) == folder


def test_every_setting_has_a_folder_of_its_own() -> None:
    digests = {Shapes(**change).digest for change in ({}, {"seed": 1}, {"noise": 25}, {"classes": ["disc"]})}
    assert len(digests) == 4
    assert Shapes(classes=["disc"]) == Shapes(classes=("disc",))


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "paint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(cache=tmp_path, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = shapes._draw_into

    def overtaken(folder: Path, settings: Shapes) -> None:
        really(folder, settings)
        winner = tmp_path / f"shapes-{settings.digest}"
        winner.mkdir()
        (winner / "theirs").touch()

    monkeypatch.setattr(shapes, "_draw_into", overtaken)
    folder = draw(cache=tmp_path, **FEW)
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_be_moved_is_an_error(tmp_path: Path) -> None:
    name = f"shapes-{Shapes(**FEW).digest}"
    (tmp_path / name).touch()
    with pytest.raises(StorageError, match=f"{name}: can't be written"):
        draw(cache=tmp_path, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"classes": ["disc", "blob"]}, "classes are different ones out of .*blob"),
        ({"classes": []}, "classes are"),
        ({"hue": "red"}, "hue is `class` or `any`, found `red`"),
        ({"images": 0}, "each split needs an image"),
        ({"objects": [5, 2]}, r"objects is \[fewest, most\]"),
        ({"radius": [0.2]}, r"radius is \[smallest, largest\]"),
        ({"size": 16}, "raise size or radius"),
        ({"noise": 300}, "noise lies in"),
        ({"overlap": 2}, "overlap is a share"),
    ],
)
def test_settings_out_of_range(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shapes(**setting)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (300, 200)])
def test_png_holds_the_pixels(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        image.verify()
    with Image.open(io.BytesIO(png(pixels))) as image:
        np.testing.assert_array_equal(np.array(image), pixels)


def test_a_launcher_can_draw_and_fingerprint_without_torch() -> None:
    code = (
        "import sys, maskbench.data.shapes, maskbench.data.fingerprint; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'albumentations')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
