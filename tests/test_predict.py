from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from converted import weights
from maskbench.errors import ConfigError, DataError, WeightsError
from maskbench.methods.solov2 import SOLOv2
from maskbench.predict import predict
from maskbench.runtime import predicting
from maskbench.structures import Frame, Instances, Masks
from maskbench.sweep.identity import trial_name
from trained import call, run

__all__ = ["run", "weights"]


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
    assert found["certain"] == 0
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    highest = f"the highest is {max(result['score'] for result in results):.2f}" if results else "nothing was found"
    assert highest in capsys.readouterr().err


def test_who_asks_for_results_alone_is_not_told_that_nothing_is_drawn(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = call(predict, f"run={run}", f"images={photos}/a.jpg", f"out={tmp_path}", "score=1.01", "save=[results]")
    assert found["certain"] == 0
    assert "drawn" not in capsys.readouterr().err


def test_nothing_to_segment_is_an_error(run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 files is a photo"):
        call(predict, f"run={run}", f"images={photos}/broken.png", f"out={tmp_path}/out")
    with pytest.raises(DataError, match="no photo there"):
        call(predict, f"run={run}", f"images={photos}/*.tif")
    with pytest.raises(DataError, match=r"no photo there, but in its folders: say \"images='.*/\*\*/\*'\""):
        call(predict, f"run={run}", f"images={photos.parent}")


def test_a_glob_takes_photos_and_passes_other_files_over(photos: Path) -> None:
    found = predicting.find_photos(f"{photos.parent}/**/*")
    assert [path.name for path in found] == ["a.jpg", "a.png", "broken.png"]
    assert [path.name for path in predicting.find_photos(f"{photos}/*.txt")] == ["notes.txt"]


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


def test_files_of_any_kind_and_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grey, 16 bits, turned by EXIF, with blanks and letters of any alphabet."""
    folder = tmp_path / "meine Fotos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(folder / "größe 細胞.jpg", exif=exif)
    Image.fromarray(noise[:, :, 0]).save(folder / "grey.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 16).save(folder / "deep.tif")
    given = (f"images='{folder}'", f"out='{tmp_path}/aus gabe'", "score=0", "device=cpu")
    found = call(predict, f"run={run}", *given, "save=[overlays,results,label_maps]")
    assert found["images"] == 3
    out = tmp_path / "aus gabe"
    sizes = {}
    for path in out.rglob("*.png"):
        with Image.open(path) as image:
            sizes[path.relative_to(out).as_posix()] = image.size
    upright = {"grey.png": (540, 360), "deep.png": (540, 360), "größe 細胞.png": (360, 540)}
    assert sizes == upright | {f"label_maps/{name}": (90, 60) for name in upright}
    assert {path.name for path in out.glob("label_maps/*.csv")} == {"grey.csv", "deep.csv", "größe 細胞.csv"}
    for result in json.loads((out / "predictions.json").read_text()):
        assert result["segmentation"]["size"] == [60, 90]
    told = capsys.readouterr().err
    assert "turned by EXIF" in told
    assert "16 bits" in told
    assert "here at most 16 of 255" in told
    with Image.open(out / "deep.png") as image:
        assert np.asarray(image).max() == 255


@pytest.mark.usefixtures("_finds_one")
def test_what_is_saved_is_chosen(run: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = (f"run={run}", f"images={photos}/a.jpg", f"out={out}", "device=cpu")
    assert call(predict, *given, "save=[label_maps]")["images"] == 1
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {"label_maps/a.png", "label_maps/a.csv"}
    with Image.open(out / "label_maps/a.png") as image:
        assert (np.asarray(image) == 1).all()
    call(predict, *given, "save=[label_maps]", "score=1.01")
    with Image.open(out / "label_maps/a.png") as image:
        assert not np.asarray(image).any()
    with pytest.raises(ConfigError, match=r"save=results: expected a list, each text, as in 'save=\[results\]'"):
        call(predict, *given, "save=results")
    with pytest.raises(ConfigError, match=r"save=\[masks\]: expected some of overlays, results, label_maps"):
        call(predict, *given, "save=[overlays,masks]")
    with pytest.raises(ConfigError, match=r"save=\[\]: expected some of"):
        call(predict, *given, "save=[]")


@pytest.mark.usefixtures("_finds_one")
def test_label_maps_and_overlays_keep_out_of_each_others_way(run: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("", "label_maps"):
        (tmp_path / "set" / name).mkdir(exist_ok=True)
        shutil.copy(photos / "a.jpg", tmp_path / "set" / name)
    out = tmp_path / "out"
    call(predict, f"run={run}", f"images={tmp_path}/set/**/*.jpg", f"out={out}", "save=[overlays,label_maps]")
    assert len(list(out.rglob("*.png"))) == 4


def test_methods_side_by_side(run: Path, weights: Path, photos: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / trial_name("solov2-small", 3, "01234567"))
    out = tmp_path / "out"
    sources = f"compare=['{run}','{other}','{weights}']"
    found = call(
        predict, sources, f"images={photos}/a.*", f"out={out}", "score=0", "save=[overlays,results,label_maps]"
    )
    assert list(found["methods"]) == ["solov2-small seed 0", "solov2-small seed 3", "their 3"]
    one, same, theirs = found["methods"].values()
    assert one == same != theirs
    assert one["certain"] == one["instances"] > 0
    for name, counts in found["methods"].items():
        assert len(json.loads((out / name / "predictions.json").read_text())) == counts["instances"]
        assert len(list((out / name / "label_maps").glob("*.png"))) == 2
    photo, first, second, third = panels(out / "a.jpg.png")
    assert photo.shape == first.shape
    assert (first == second).all()  # what both find has the same colours
    assert (photo != first).any()
    assert (first != third).any()


def panels(path: Path) -> list[np.ndarray]:
    """The four panels of a picture of photos that are 90 pixels wide and 70 high, without their head lines."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return [pixels[-420:, left : left + 540] for left in range(0, 4 * 548, 548)]


def test_what_segments_is_named_once(run: Path, photos: Path, tmp_path: Path) -> None:
    images = f"images={photos}/a.jpg"
    with pytest.raises(ConfigError, match=r"found nothing to segment with: expected one of run=DIR, weights=FILE"):
        call(predict, images)
    with pytest.raises(ConfigError, match=r"found run=\.\.\. and compare=\.\.\. to segment with"):
        call(predict, images, f"run={run}", f"compare=['{run}']")
    with pytest.raises(ConfigError, match="expected each run or file once"):
        call(predict, images, f"compare=['{run}','{run}/']")
    with pytest.raises(WeightsError, match="nowhere: no such file or folder; expected a run"):
        call(predict, images, f"compare=['{run}',{tmp_path}/nowhere]")


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (("a/solov2-seed0-01234567", "a/htc-seed0-01234567"), ["solov2", "htc"]),
        (("a/solov2-seed0-01234567", "a/solov2-seed1-01234567"), ["solov2 seed 0", "solov2 seed 1"]),
        (("a/solov2-seed0-01234567", "a/solov2-seed0-89abcdef"), ["solov2-seed0-01234567", "solov2-seed0-89abcdef"]),
        (("a/htc-seed0-01234567", "b/htc-seed0-01234567"), ["a htc-seed0-01234567", "b htc-seed0-01234567"]),
        (("x/model.safetensors", "torchvision/maskrcnn_resnet50_fpn"), ["model", "maskrcnn_resnet50_fpn"]),
        (("x/b/m.safetensors", "y/b/m.safetensors"), ["1 m", "2 m"]),
    ],
)
def test_methods_are_called_by_what_tells_them_apart(sources: tuple[str, ...], names: list[str]) -> None:
    assert predicting.titles(sources) == names
