from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskbench.data.coco import CocoFile, Record
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.semantic import open_maps
from maskbench.data.transforms import Eval, Train, Transforms
from maskbench.errors import DataError

RECORD = Record(11, "b.png", (20, 30))
CLASSES = np.zeros((20, 30), np.uint8)
CLASSES[:, 10:] = 7
CLASSES[15:] = 255


@pytest.fixture
def label_maps(write) -> Path:
    """A data set of which one photo has a map."""
    root = write()
    (root / "stuff").mkdir()
    Image.fromarray(CLASSES).save(root / "stuff" / "b.png")
    return root


@pytest.fixture
def panoptic(write) -> Path:
    """The same as a panoptic json: classes 0 and 1 are the categories 3 and 50, 70000 and 5 their segments."""
    root = write()
    ids = np.where(CLASSES == 7, 70000, np.where(CLASSES == 0, 5, 0)).astype(np.uint32)
    (root / "annotations" / "panoptic").mkdir()
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(
        root / "annotations" / "panoptic" / "b.png"
    )
    segments = [{"id": 70000, "category_id": 50}, {"id": 5, "category_id": 3}]
    content = {
        "categories": [{"id": 50, "name": "sky"}, {"id": 3, "name": "grass"}],
        "annotations": [{"image_id": 11, "file_name": "b.png", "segments_info": segments}],
    }
    (root / "annotations" / "panoptic.json").write_text(json.dumps(content))
    return root


def test_a_folder_of_label_maps(label_maps: Path) -> None:
    found = open_maps(label_maps / "stuff")(RECORD)
    assert found[0, 0] == 1
    assert found[0, 10] == 8
    assert not found[15:].any()


def test_a_panoptic_json(panoptic: Path) -> None:
    found = open_maps(panoptic / "annotations" / "panoptic.json")(RECORD)
    assert found[0, 0] == 1
    assert found[0, 10] == 2
    assert not found[15:].any()


def test_a_photo_without_a_map_is_unknown(label_maps: Path) -> None:
    assert not open_maps(label_maps / "stuff")(Record(7, "a.png", (20, 30))).any()


def module(root: Path, semantic: str, transforms: Transforms | None = None) -> CocoDataModule:
    return CocoDataModule(root, batch=3, tune_share=0, train_semantic=semantic, transforms=transforms)


def test_batches_carry_them_in_training_alone(label_maps: Path) -> None:
    data = module(label_maps, "stuff", Transforms(Train(short=40), Eval(short=40)))
    (batch,) = data.train_dataloader()
    assert batch.semantic is not None
    row = [frame.image_id for frame in batch.frames].index(11)
    found = batch.semantic[row]
    assert found.shape == (64, 64)
    assert found[:30, :20].unique().tolist() == [0]
    assert found[:30, 20:60].unique().tolist() == [7]
    assert found[30:].unique().tolist() == [255]  # unknown, and below it padding
    assert found[:, 60:].unique().tolist() == [255]
    others = torch.cat([batch.semantic[:row], batch.semantic[row + 1 :]])
    assert others.unique().tolist() == [255]
    assert next(iter(data.test_dataloader())).semantic is None


def test_the_fingerprint_is_of_the_maps_too(label_maps: Path, panoptic: Path) -> None:
    before = module(label_maps, "stuff").fingerprint
    Image.fromarray(CLASSES[::-1].copy()).save(label_maps / "stuff" / "b.png")
    assert module(label_maps, "stuff").fingerprint != before
    described = module(panoptic, "annotations/panoptic.json").fingerprint
    path = panoptic / "annotations" / "panoptic.json"
    path.write_text(path.read_text().replace('"category_id": 50', '"category_id": 3'))
    assert module(panoptic, "annotations/panoptic.json").fingerprint != described


@pytest.mark.parametrize(
    ("pixels", "named"),
    [(CLASSES[:10], r"10 x 30 pixels.* 20 x 30"), (np.zeros((20, 30, 3), np.uint8), "one channel of 8 bits")],
)
def test_a_map_that_does_not_fit_is_named(label_maps: Path, pixels: np.ndarray, named: str) -> None:
    Image.fromarray(pixels).save(label_maps / "stuff" / "b.png")
    with pytest.raises(DataError, match=rf"stuff/b.png: .*{named}"):
        open_maps(label_maps / "stuff")(RECORD)


def test_what_can_not_be_read_is_named(label_maps: Path, panoptic: Path) -> None:
    (label_maps / "stuff" / "b.png").write_bytes(b"no png")
    with pytest.raises(DataError, match=r"b.png: is no map"):
        open_maps(label_maps / "stuff")(RECORD)
    with pytest.raises(DataError, match="no such folder of maps"):
        open_maps(label_maps / "nowhere")
    (label_maps / "annotations" / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"is no panoptic json.*categories"):
        open_maps(label_maps / "annotations" / "other.json")
    (label_maps / "empty").mkdir()
    records = CocoFile(label_maps / "annotations" / "instances_train.json").records.values()
    with pytest.raises(DataError, match="holds no map of any photo"):
        open_maps(label_maps / "empty").files(records)
    Image.fromarray(CLASSES).save(panoptic / "annotations" / "panoptic" / "b.png")
    with pytest.raises(DataError, match="one channel, expected red"):
        open_maps(panoptic / "annotations" / "panoptic.json")(RECORD)


def test_real_panoptic_maps_agree_with_the_instances(shared: Path) -> None:
    """Of a photo of COCO that has both, things cover what its instances cover."""
    root = shared / "data" / "coco_slice" / "annotations"
    file, maps = CocoFile(root / "instances_train.json"), open_maps(root / "panoptic_train.json")
    things = {
        label + 1
        for label, category in enumerate(
            sorted(json.loads((root / "panoptic_train.json").read_text())["categories"], key=lambda each: each["id"])
        )
        if category["isthing"]
    }
    records = [record for record in file.records.values() if maps.file(record) is not None]
    assert len(records) > 20
    for record in records[:5]:
        covered = np.isin(maps(record), list(things))
        runs = [each.runs for each in file.annotations(record.image_id)]
        if runs:
            flat = np.zeros(record.size[0] * record.size[1], bool)
            for each in runs:
                ends = np.cumsum(each)
                for start, end in zip(ends[::2], ends[1::2], strict=False):
                    flat[start:end] = True
            drawn = flat.reshape(record.size[1], record.size[0]).T
            assert (drawn & covered).sum() / max(1, (drawn | covered).sum()) > 0.8
