"""`maskbench fit`: a file that train takes, with what train would fit itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from maskbench.data.shapes import draw
from maskbench.errors import ConfigError, DataError
from maskbench.fit import fit
from maskbench.runtime import batch, nvidia
from maskbench.runtime.compose import build_method
from maskbench.runtime.trial import identify
from trained import call, composed

DRAWN = (
    "method=small/solov2",
    "data.root.images=16",
    "data.root.val_images=4",
    "data.root.size=64",
    "data.tune_share=0.25",
    "transforms.eval.short=64",
)
CLASSES = ("disc", "rectangle", "triangle")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "smallest_memory", lambda: None)


def test_train_takes_the_file_for_what_it_would_fit_itself(tmp_path: Path) -> None:
    out = tmp_path / "fitted" / "experiment" / "plates.yaml"
    written = call(fit, *DRAWN, f"out='{out}'")
    assert written["out"] == str(out)
    taken = composed("train", [*DRAWN, "experiment=plates", f"hydra.searchpath=['file://{out.parents[1]}']"])
    itself = identify(
        composed("train", [*DRAWN, "fit=true"]), HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task
    )
    assert written["settings"] == {each.setting: each.value for each in itself.fitted}
    for setting, value in written["settings"].items():
        assert OmegaConf.select(taken, setting) == value
    assert all(each.reason.split()[0] in out.read_text() for each in itself.fitted)
    json.dumps(written)  # the line that ends the command


@pytest.mark.parametrize("out", ["mine.yaml", "conf/mine.yaml", "experiment/mine.txt"])
def test_a_file_that_train_would_not_find_is_refused(out: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected FOLDER/experiment/NAME\.yaml"):
        call(fit, *DRAWN, f"out='{tmp_path / out}'")


def test_a_name_that_train_takes_for_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine is a recipe of maskbench's own, .*: choose another name"):
        call(fit, *DRAWN, f"out='{tmp_path / 'experiment' / 'mine.yaml'}'")


def test_data_without_objects_are_told(tmp_path: Path) -> None:
    folder = shutil.copytree(draw(images=4, val_images=4, size=64), tmp_path / "plates")
    for file in folder.glob("annotations/*.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    words = ("method=small/solov2", "data=coco", f"data.root='{folder}'", f"out='{tmp_path}/experiment/plates.yaml'")
    with pytest.raises(DataError, match="has no object that settings could be fitted to"):
        call(fit, *words)


def test_the_batch_is_what_a_gpu_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "step_memory", lambda cfg: (2 * 10**9, 3 * 10**9))
    sizes = {memory: batch.fit_batch(OmegaConf.create({}), memory * 10**9).value for memory in (7, 9, 14, 24, 400)}
    assert sizes == {7: 1, 9: 2, 14: 4, 24: 8, 400: 16}  # four fifths of it, less three
    with pytest.raises(ConfigError, match=r"an image takes 2\.00 GB .* belongs to them 3\.00 GB"):
        batch.fit_batch(OmegaConf.create({}), 6 * 10**9)


def test_an_image_of_twice_the_side_holds_four_times_as_much() -> None:
    cfg = composed("train", [*DRAWN, "backbone.weights=scratch"])
    small, shared = batch.step_memory(cfg)
    cfg.transforms.eval.short = 128
    large, same = batch.step_memory(cfg)
    assert shared == same == 4 * sum(weight.nbytes for weight in build_method(cfg, CLASSES).parameters())
    assert large == pytest.approx(4 * small, rel=0.25)  # grids have as many cells at any size


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["trainer=default", "memory_gb=8"], True),
        (["trainer=default", "memory_gb=8", "data.batch=2"], False),
        (["trainer=default"], False),
        (["memory_gb=8"], False),  # on a CPU, as the default trainer is
    ],
)
def test_a_batch_is_fitted_where_there_is_a_gpu_and_nobody_has_said_one(
    words: list[str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "step_memory", lambda cfg: (10**9, 0))
    written = call(fit, *DRAWN, *words, f"out='{tmp_path}/experiment/plates.yaml'")
    assert written["settings"].get("data.batch") == (4 if there else None)
