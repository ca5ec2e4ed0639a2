"""Public data sets by their configs, each as a miniature of its official folder."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from maskbench.data import labelmaps, sbd
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.preflight.survey import survey
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.runtime.compose import build_data, composed
from maskbench.runtime.preflight import layout
from maskbench.runtime.trial import identify

SQUARE = [[4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]]


def photo(path: Path) -> None:
    """Of any name another one."""
    number = zlib.crc32(path.name.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 48, 3)).astype(np.uint8)).save(path)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def annotated(image_id: int, category_id: int, **more: Any) -> dict[str, Any]:
    square = {"segmentation": SQUARE, "area": 256.0, "bbox": [4.0, 4.0, 16.0, 16.0]}
    return {"id": 1768, "image_id": image_id, "category_id": category_id, **square, **more}


def listed(image_id: int, name: str, **more: Any) -> dict[str, Any]:
    """A photo of COCO 2017, by folder and file."""
    about = {"height": 32, "width": 48, "license": 3, "date_captured": "2013-11-14 17:02:52", "flickr_url": ""}
    return {"id": image_id, "coco_url": f"http://images.cocodataset.org/{name}", **about, **more}


def coco2017(root: Path) -> Path:
    """Photos are called as their ids; ids of categories have gaps; other tasks lie beside."""
    categories = [{"id": 1, "name": "person"}, {"id": 90, "name": "toothbrush"}]
    for split, first in (("train", 9), ("val", 139)):
        names = {number: f"{split}2017/{number:012}.jpg" for number in range(first, first + 4)}
        for name in names.values():
            photo(root / name)
        images = [listed(number, name, file_name=Path(name).name) for number, name in names.items()]
        annotations = [annotated(first, 90, iscrowd=0)]
        file = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        write(root / f"annotations/instances_{split}2017.json", file)
        write(root / f"annotations/captions_{split}2017.json", {**file, "annotations": []})
    return root


def lvis(root: Path) -> Path:
    """Beside COCO's: no `file_name`, a photo of val in train2017, classes that were looked for in vain."""
    coco2017(root)
    about = {"synonyms": [], "def": "", "frequency": "c", "image_count": 20, "instance_count": 30}
    categories = [{"id": 1, "name": "acorn", **about}, {"id": 2, "name": "zebra", **about}]
    known: dict[str, Any] = {"not_exhaustive_category_ids": [], "neg_category_ids": [2]}
    photos = {"train": [f"train2017/{n:012}.jpg" for n in range(9, 13)], "val": ["val2017/000000000139.jpg"]}
    photos["val"].append(photos["train"].pop())
    for split, names in photos.items():
        images = [listed(int(Path(name).stem), name, **known) for name in names]
        file = {"images": images, "annotations": [annotated(images[0]["id"], 1)], "categories": categories}
        write(root / f"annotations/lvis_v1_{split}.json", {"info": {}, "licenses": [], **file})
    return root


def cityscapes(root: Path) -> Path:
    """Cities below splits, four files of truth for each photo, and a test split whose truth is a dummy."""
    source = root / "cityscapes"
    for split, city in (("train", "aachen"), ("val", "ulm"), ("test", "berlin")):
        for number in range(4):
            name = f"{city}_{number:06}_000019"
            photo(source / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
            values = np.full((32, 48), 3 if split == "test" else 7, np.uint16)
            if split != "test":
                values[4:20, 4:20], values[4:20, 20:30], values[25:, :] = 24000, 26000, 26
            truth = source / f"gtFine/{split}/{city}"
            truth.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(truth / f"{name}_gtFine_instanceIds.png")
            for kind in ("labelIds", "color"):
                Image.fromarray((values % 256).astype(np.uint8)).save(truth / f"{name}_gtFine_{kind}.png")
            write(truth / f"{name}_gtFine_polygons.json", {"imgHeight": 32, "imgWidth": 48, "objects": []})
    labelmaps.convert(source, root / "out")
    return root / "out"


def sbd_of_voc(root: Path) -> Path:
    """MATLAB's files and lists of ids."""
    source = root / "benchmark_RELEASE/dataset"
    for folder in ("inst", "cls"):
        (source / folder).mkdir(parents=True)
    labels = np.zeros((32, 48), np.uint8)
    labels[4:20, 4:20] = 1
    for split, names in (("train", range(4)), ("val", range(4, 8))):
        for number in names:
            photo(source / f"img/2008_{number:06}.jpg")
            truth = {"Segmentation": labels, "Boundaries": np.zeros((1, 1)), "Categories": np.array([[15]])}
            savemat(source / f"inst/2008_{number:06}.mat", {"GTinst": truth})
        (source / f"{split}.txt").write_text("".join(f"2008_{number:06}\n" for number in names))
    sbd.convert(root / "benchmark_RELEASE", root / "out")
    return root / "out"


def plants(root: Path) -> Path:
    """CVPPP's: no splits."""
    labels = np.zeros((32, 48), np.uint8)
    labels[4:20, 4:20] = 1
    for number in range(5):
        photo(root / f"source/A1/plant{number:03}_rgb.png")
        Image.fromarray(labels).save(root / f"source/A1/plant{number:03}_label.png")
    labelmaps.convert(root / "source", root / "out")
    return root / "out"


SETS: dict[str, tuple[Callable[[Path], Path], tuple[int, int, int], int]] = {
    "coco2017": (coco2017, (3, 1, 4), 2),
    "lvis": (lvis, (2, 1, 2), 2),
    "cityscapes": (cityscapes, (3, 1, 4), 8),
    "sbd": (sbd_of_voc, (3, 1, 4), 20),
    "labelmaps": (plants, (3, 1, 1), 1),
}
"""The miniature, the photos of train, tune and test, and the number of classes."""


@pytest.mark.parametrize("name", SETS)
def test_an_official_folder_is_read_by_its_config(name: str, tmp_path: Path) -> None:
    make, splits, classes = SETS[name]
    words = [f"data={name}", f"data.root={make(tmp_path)}", "data.batch=2", "data.workers=0"]
    cfg = composed("train", words)
    data: CocoDataModule = build_data(cfg)
    assert tuple(len(data.image_ids(split)) for split in ("train", "tune", "test")) == splits
    assert len(data.classes) == classes
    assert all(target.masks.is_dense for batch in data.train_dataloader() for target in batch.targets)
    truth = GroundTruth(data.annotations("test"), data.image_ids("test"))
    assert sum(len(target) for batch in data.test_dataloader() for target in batch.targets) == data.objects("test") > 0
    assert len(truth.images) == splits[2]
    assert truth.federated is (name == "lvis")
    looked = survey(layout(cfg))
    assert looked.count("error") == 0, looked.as_dict()["findings"]
    assert identify(cfg, {"method": "small/solov2", "data": name}).fingerprint == data.fingerprint


def test_every_data_set_has_its_miniature(root: Path) -> None:
    drawn_or_given = {"coco", "nuclei", "shapes", "shapes_hard"}
    assert {path.stem for path in (root / "conf/data").glob("*.yaml")} == {*SETS, *drawn_or_given}
