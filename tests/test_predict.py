from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from maskbench.errors import DataError
from maskbench.methods.solov2 import SOLOv2
from maskbench.predict import predict
from maskbench.runtime import predicting
from maskbench.structures import Frame, Instances, Masks
from trained import call, run

__all__ = ["run"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos of different sizes, one of them with another's name, and a file that only looks like one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), noise)
    cv2.imwrite(str(folder / "a.jpg"), noise[:70, :, 0])
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no photo")
    return folder


@pytest.fixture
def _finds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a few steps of training made of the network: in every photo it finds one object, the whole photo."""

    def instances(self: SOLOv2, raw: object, frames: list[Frame]) -> list[Instances]:
        every = [Masks(torch.ones(1, *frame.photo, dtype=torch.bool)) for frame in frames]
        return [Instances(mask, mask.boxes(), torch.zeros(1).long(), torch.ones(1)) for mask in every]

    monkeypatch.setattr(SOLOv2, "instances", instances)


@pytest.mark.usefixtures("_finds_one")
def test_a_folder_with_a_broken_file(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(predict, f"run={run}", f"images={photos}", f"out={tmp_path}/out", "device=cpu")
    assert found["images"] == 2
    assert list(found["broken"]) == [str(photos / "broken.png")]
    assert "broken.png" in capsys.readouterr().err
    sizes = {path.name: cv2.imread(str(path)).shape[:2] for path in (tmp_path / "out").glob("*.png")}
    assert sizes == {"a.png.png": (600, 360), "a.jpg.png": (420, 540)}  # small photos are magnified
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(results) == found["instances"] == 2
    assert {result["file_name"] for result in results} == {"a.png", "a.jpg"}
    for result in results:
        assert result["segmentation"]["size"] == ([150, 90] if result["file_name"] == "a.png" else [70, 90])
        assert result["category_id"] > 0


def test_a_glob_and_a_single_image(run: Path, photos: Path, tmp_path: Path) -> None:
    assert call(predict, f"run={run}", f"images={photos}/*.jpg", f"out={tmp_path}/glob")["images"] == 1
    assert call(predict, f"run={run}", f"images={photos}/a.png", f"out={photos}")["images"] == 1
    assert (photos / "a-overlay.png").exists()  # the photo itself is never written over


def test_where_nothing_is_certain_the_highest_score_is_told(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(predict, f"run={run}", f"images={photos}/a.jpg", f"out={tmp_path}/out", "device=cpu", "score=1.01")
    assert found["drawn"] == 0
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    highest = f"the highest is {max(result['score'] for result in results):.2f}" if results else "nothing was found"
    assert highest in capsys.readouterr().err


def test_nothing_to_segment_is_an_error(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 files is a photo"):
        call(predict, f"run={run}", f"images={photos}/broken.png", f"out={tmp_path}/out")
    with pytest.raises(DataError, match="no photo there"):
        call(predict, f"run={run}", f"images={photos}/*.tif")


def test_the_data_set_of_the_run_is_not_needed(run: Path, photos: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("size: 64", "size: -1"))
    assert call(predict, f"run={copy}", f"images={photos}/a.jpg", f"out={tmp_path}/out")["images"] == 1


@pytest.mark.usefixtures("_finds_one")
def test_photos_of_one_name_in_two_folders_stay_apart(run: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "set" / name).mkdir(parents=True)
        shutil.copy(photos / "a.jpg", tmp_path / "set" / name)
    found = call(predict, f"run={run}", f"images={tmp_path}/set/*/*.jpg", f"out={tmp_path}/out", "device=cpu")
    assert found["images"] == 2
    out = tmp_path / "out"
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {"one/a.png", "two/a.png"}
    named = {result["file_name"] for result in json.loads((out / "predictions.json").read_text())}
    assert named == {"one/a.jpg", "two/a.jpg"}


@pytest.mark.usefixtures("_finds_one")
def test_ctrl_c_keeps_what_is_done(run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = predicting.read_photo

    def interrupted(path: Path) -> object:
        if path.name == "a.png":  # the second of them
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(predicting, "read_photo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(predict, f"run={run}", f"images={photos}/a.*", f"out={tmp_path}/out", "device=cpu")
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert {result["file_name"] for result in results} == {"a.jpg"}
