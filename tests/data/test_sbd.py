from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from maskbench.data.coco import CocoFile
from maskbench.data.sbd import CLASSES, convert
from maskbench.errors import DataError

LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:8, 3:10] = 1
LABELS[2:8, 10:20] = 2
LABELS[15:, 25:] = 1
"""A person in two pieces, and a bird."""


def save(root: Path, name: str, labels: np.ndarray = LABELS, categories: tuple[int, ...] = (15, 3)) -> None:
    """A photo and its truth as SBD has them."""
    for folder in ("img", "inst"):
        (root / "dataset" / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(root / "dataset/img" / f"{name}.jpg")
    truth: dict[str, Any] = {
        "Segmentation": labels,
        "Boundaries": np.zeros((2, 1)),
        "Categories": np.array(categories)[:, None],
    }
    savemat(root / "dataset/inst" / f"{name}.mat", {"GTinst": truth})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """SBD as it is unpacked, with three photos, one of them in no split."""
    root = tmp_path / "benchmark_RELEASE"
    for name in ("2008_000002", "2008_000003", "2008_000007"):
        save(root, name)
    (root / "dataset/train.txt").write_text("2008_000002\n")
    (root / "dataset/val.txt").write_text("2008_000007\n")
    return root


def test_instances_come_back_pixel_by_pixel(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out")
    file = CocoFile(tmp_path / "out/annotations/instances_val.json")
    assert list(file.categories.values()) == list(CLASSES)
    ((image_id, record),) = file.records.items()
    assert (record.file_name, record.size) == ("2008_000007.jpg", (20, 30))
    found = [(file.categories[each.category_id], each.crowd, each.area) for each in file.annotations(image_id)]
    assert found == [("person", False, 6 * 7 + 5 * 5), ("bird", False, 60)]
    assert (tmp_path / "out/images/2008_000002.jpg").is_file()
    assert not (tmp_path / "out/images/2008_000003.jpg").exists(), "it is in no split"


def test_the_folder_within_is_taken_as_well(source: Path, tmp_path: Path) -> None:
    written = convert(source / "dataset", tmp_path / "out")
    assert {split: len(entries) for split, entries in written.items()} == {"train": 1, "val": 1}


def test_what_can_not_be_converted_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="nowhere: expected dataset/img and dataset/inst"):
        convert(tmp_path / "nowhere", out)
    save(source, "2008_000002", labels=LABELS[:10])
    with pytest.raises(DataError, match=r"2008_000002\.mat: has 10 x 30 pixels .*, but its photo has 20 x 30"):
        convert(source, out)
    save(source, "2008_000002", categories=(15,))
    with pytest.raises(DataError, match=r"2008_000002\.mat: instance 2 has no class from 1 to 20"):
        convert(source, out)
    (source / "dataset/inst/2008_000002.mat").write_text("no matrix")
    with pytest.raises(DataError, match=r"2008_000002\.mat: is no instance map of SBD"):
        convert(source, out)
    (source / "dataset/img/2008_000002.jpg").unlink()
    with pytest.raises(DataError, match=r"2008_000002\.jpg: no such image"):
        convert(source, out)
    (source / "dataset/train.txt").write_text("")
    with pytest.raises(DataError, match=r"train\.txt: is empty"):
        convert(source, out)
    (source / "dataset/train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt: can't be read"):
        convert(source, out)
    assert not out.exists()


def test_without_scipy_the_extra_is_named(source: Path, tmp_path: Path) -> None:
    line = "import sys; sys.modules['scipy.io'] = None; from maskbench.data.sbd import main; main()"
    command = [sys.executable, "-c", line, str(source), str(tmp_path / "out")]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stdout) == (1, "")
    assert "pip install 'maskbench[sbd]'" in told.stderr
