from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import torch

from maskbench.errors import DataError
from maskbench.evaluation.results import coco_results, read_predictions, write_predictions
from maskbench.structures import Frame, Instances

RECORD = {"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [1, 2, 3, 4]}


def test_a_result_says_where_what_and_how_sure(predict):
    instances, frame = predict(7, [(1, (2, 3, 10, 20), 0.75)])
    (result,) = coco_results(instances, frame, category_ids=(3, 8))
    assert result["image_id"] == 7
    assert result["category_id"] == 8
    assert result["score"] == 0.75
    assert result["box"] == [2, 3, 10, 20]
    assert "bbox" not in result
    assert np.array_equal(rle_codec.decode(result["segmentation"]), instances.masks.dense()[0].numpy())
    assert json.loads(json.dumps(result)) == result


def test_nothing_found_is_no_result():
    assert coco_results(Instances.empty((40, 40)), Frame(7, (40, 40), (20, 20)), (3,)) == []


def test_masks_that_are_not_of_the_photo_are_refused(predict):
    instances, _ = predict(7, [(0, (2, 3, 10, 20), 0.75)])
    with pytest.raises(ValueError, match=r"image 7: masks are \(40, 40\) pixels, but the photo is \(80, 40\)"):
        coco_results(instances, Frame(7, (80, 40), (40, 20)), (3,))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_without_category_is_refused(predict, label):
    instances, frame = predict(7, [(label, (2, 3, 10, 20), 0.75)])
    with pytest.raises(ValueError, match="2 categories"):
        coco_results(instances, frame, (3, 8))


@pytest.mark.parametrize("name", ["predictions.json", "predictions.json.gz"])
def test_what_was_written_is_read(tmp_path: Path, predict, name):
    instances, frame = predict(7, [(0, (2, 3, 10, 20), 0.1), (1, (0, 0, 1, 1), 1 / 3)])
    results = coco_results(instances[torch.tensor([1, 0])], frame, (3, 8))
    write_predictions(tmp_path / "deeper" / name, results)
    assert read_predictions(tmp_path / "deeper" / name) == results
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == [name]


def test_no_results_are_a_file_too(tmp_path: Path):
    write_predictions(tmp_path / "none.json.gz", [])
    assert read_predictions(tmp_path / "none.json.gz") == []


def test_equal_results_are_equal_bytes(tmp_path: Path):
    first, second = tmp_path / "first.json.gz", tmp_path / "second.json.gz"
    for path in (first, second):
        write_predictions(path, [RECORD])
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes()[4:8] == bytes(4), "a time stamp would differ from run to run"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "predictions.json.gz"
    write_predictions(path, [RECORD])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_predictions(path, [{**RECORD, "score": float("nan")}])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_cleans_up(tmp_path: Path):
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_predictions(tmp_path / "taken.json", [RECORD])
    assert [path.name for path in tmp_path.iterdir()] == ["taken.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, "found a json object; is it an annotation file"),
        ("text", "found a string"),
        ([RECORD, 3], "record 1: expected an object"),
        ([RECORD, {"image_id": 7, "score": 1}], "record 1: lacks category_id; found image_id, score"),
        ([{"image_id": 7, "category_id": 3, "score": 1}], "record 0: has neither a segmentation nor a bbox"),
        ([{**RECORD, "image_id": "7"}], "record 0: image_id is an integer, found '7'"),
        ([{**RECORD, "category_id": True}], "record 0: category_id is an integer, found True"),
        ([{**RECORD, "score": None}], "record 0: score is a finite number, found None"),
        ([{**RECORD, "score": float("nan")}], "record 0: score is a finite number, found nan"),
        ([{**RECORD, "score": 10**400}], "record 0: score is a finite number, found 1000"),
        ([{**RECORD, "bbox": [1, 2, 3]}], r"record 0: bbox is \[x, y, width, height\], found \[1, 2, 3\]"),
        ([{**RECORD, "segmentation": {"size": [4, 4]}}], "record 0: segmentation is an RLE"),
        ([{**RECORD, "segmentation": {"size": [4], "counts": "04"}}], "record 0: segmentation is an RLE"),
        ([{**RECORD, "segmentation": [[1, 2]]}], "record 0: segmentation is an RLE"),
        ([{**RECORD, "segmentation": "04"}], "record 0: segmentation is an RLE"),
    ],
)
def test_a_broken_file_is_named_with_its_record(tmp_path: Path, content, message):
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[{]", gzip.compress(b"[]" * 50, mtime=0)[:20], gzip.compress(b"[]")[:-6] + b"000000", b"[" * 200_000],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content):
    path = tmp_path / "unreadable.json.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"unreadable\.json\.gz: expected COCO results"):
        read_predictions(path)


def test_few_bytes_that_unpack_to_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("maskbench.evaluation.results.LEAST", 10_000)
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(DataError, match=r"bomb\.json\.gz: .* unpack to more than"):
        read_predictions(path)
    write_predictions(path, [{**RECORD, "score": index / 1000} for index in range(1000)])
    assert path.stat().st_size * 5 < 10_000 * 9
    assert len(read_predictions(path)) == 1000


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent\.json"):
        read_predictions(tmp_path / "absent.json")
