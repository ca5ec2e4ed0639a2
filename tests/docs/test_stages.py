"""The pictures of the method pages: every method has its panels, also of a photo on which it finds nothing."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from maskbench.data.transforms import Transforms
from maskbench.errors import ConfigError, RunError
from maskbench.methods.base import Segmenter
from maskbench.methods.bottom_up import BottomUp
from maskbench.methods.flow_field import FlowField
from maskbench.methods.semantic import Semantic
from maskbench.ops.masks import to_photo
from maskbench.runtime.compose import build_method
from maskbench.study.runs import Key, Run

ROOT = Path(__file__).resolve().parents[2]
DOCS, CONFIGS = ROOT / "docs", ROOT / "conf" / "method"
METHODS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "_target_" in path.read_text())
CERTAIN = ("masks", "columns", "rows", "seed", "heat")
"""What starts out too faint for anything to be found."""

pytestmark = pytest.mark.skipif(not (DOCS / "stages.py").is_file(), reason="a source distribution has no documentation")


@pytest.fixture(scope="module")
def stages() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))  # as when the script is run
        yield importlib.import_module("stages")


@pytest.fixture(scope="module")
def panels(stages: ModuleType) -> ModuleType:
    return importlib.import_module("drawing.panels")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Two discs on grey, of a size that is padded."""
    y, x = np.mgrid[:90, :120]
    drawn = np.full((90, 120, 3), 90, np.uint8)
    for middle, colour in (((30, 40), (220, 40, 40)), ((60, 80), (40, 40, 220))):
        drawn[(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < 20**2] = colour
    return drawn


def build(name: str) -> Segmenter:
    """The small variant where there is one, untrained, in which something is found."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        sized = f"small/{name}" if (CONFIGS / "small" / f"{name}.yaml").is_file() else name
        cfg = compose("train", overrides=[f"method={sized}", "backbone=tiny"])
    method = build_method(cfg, ("red", "blue")).eval()
    method.point = replace(method.point, candidates=20, max_instances=10)  # few are as good as many, and quick
    for part, weight in method.named_parameters():
        if part.split(".")[0] in CERTAIN and part.endswith("bias"):
            torch.nn.init.constant_(weight, 3.0)
    if isinstance(method, FlowField):
        method.largest_error = math.inf  # what it finds is no object's own flow
    return method


def unsure(method: Segmenter) -> Segmenter:
    """The same method, which finds nothing at all."""
    method.point = replace(method.point, score_threshold=0.999)
    if isinstance(method, BottomUp):
        background = torch.zeros(1, len(method.classes) + 1, 24, 32)
        background[:, -1] = 1
        method.probabilities = lambda raw: background  # type: ignore[method-assign]
    return method


def see(stages: ModuleType, method: Segmenter, photo: np.ndarray) -> tuple[Any, Any]:
    return stages.see(method, photo, Transforms(), divisor=32, score=0.0)


def colours(image: Image.Image) -> int:
    return len(image.getcolors(image.width * image.height))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_shows_its_way_from_photo_to_instances(
    name: str, stages: ModuleType, panels: ModuleType, photo: np.ndarray
) -> None:
    method = build(name)
    raw, seen = see(stages, method, photo)
    drawn = stages.look(method, raw, seen)
    assert 4 <= len(drawn) <= 6
    assert re.fullmatch(r"instances, .*: [1-9]\d*", drawn[-1].caption), "nothing was found"
    image = panels.picture(drawn, seen.ground)
    assert image.width == panels.WIDTH
    assert colours(image) > 500


@pytest.mark.parametrize("name", METHODS)
def test_nothing_found_is_drawn_as_well(name: str, stages: ModuleType, panels: ModuleType, photo: np.ndarray) -> None:
    method = unsure(build(name))
    raw, seen = see(stages, method, photo)
    drawn = stages.look(method, raw, seen)
    assert drawn[-1].caption.endswith(": 0")
    assert panels.picture(drawn, seen.ground).width == panels.WIDTH


@torch.inference_mode()
def test_cells_have_the_colour_of_their_instance(stages: ModuleType, photo: np.ndarray) -> None:
    method, bottom_up = build("semantic"), importlib.import_module("drawing.bottom_up")
    raw, seen = see(stages, method, photo)
    known = bottom_up.mapped(method, raw, seen)
    tints = bottom_up.colours_of(bottom_up.grouped(method, raw, known), method, seen)
    row, column = (known.foreground.nonzero() * method.mask_stride + method.mask_stride // 2).T
    inside = (row < photo.shape[0]) & (column < photo.shape[1])
    covered = 0
    for number, mask in enumerate(seen.found.masks.dense()):
        own = (tints == torch.tensor(bottom_up.row_colour(number))).all(dim=1)[inside]
        drawn = mask[row[inside], column[inside]]
        assert own[drawn].all()
        covered += int(drawn.sum())
    assert covered > 0.5 * inside.sum()


@torch.inference_mode()
def test_the_cells_of_a_grid_that_are_shown_paint_the_instances(stages: ModuleType, photo: np.ndarray) -> None:
    method, one_stage = build("solo"), importlib.import_module("drawing.one_stage")
    raw, seen = see(stages, method, photo)
    size = (24, 32)
    paint = partial(method.paint, [level[0] for level in raw.features])
    cells = one_stage.Cells.of(method, raw, seen, size, partial(method.grids.painted, size=size, paint=paint))
    drawn = to_photo(cells.paint(cells.kept), seen.frame, method.mask_stride)
    assert torch.equal(drawn.dense(), seen.found.masks.dense())


def test_captions_are_no_wider_than_their_panels(panels: ModuleType) -> None:
    lines = panels.wrapped("map of the column × map of the row = mask, of the best nine that were found", 300)
    assert len(lines) > 1
    assert all(0 < panels.extent(line) <= 300 for line in lines)
    assert panels.wrapped(f"score{panels.NO_BREAK}≥{panels.NO_BREAK}0.30", 10) == ["score\u00a0≥\u00a00.30"]


def test_a_picture_is_small_whatever_is_on_it(panels: ModuleType, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(100, 120, (200, 1200, 3), np.uint8)
    noise[:, :100] = 255
    small = panels.save(Image.fromarray(noise), tmp_path / "noise.png")
    assert small.stat().st_size <= panels.LARGEST < len(panels.encoded(Image.fromarray(noise)))
    assert Image.open(small).convert("RGB").getpixel((20, 20)) == (255, 255, 255)
    noise[:, :] = (255, 88, 68)
    flat = panels.save(Image.fromarray(noise), tmp_path / "below" / "flat.png")
    assert (np.asarray(Image.open(flat)) == noise).all()


def test_a_method_that_nobody_has_drawn_is_named(stages: ModuleType, photo: np.ndarray) -> None:
    class Other(Semantic):
        pass

    method = build("semantic")
    raw, seen = see(stages, method, photo)
    method.__class__ = Other
    with pytest.raises(ConfigError, match=r"Other has no panels .* knows CascadeMaskRCNN, "):
        stages.look(method, raw, seen)


def test_settings_are_said_by_name(stages: ModuleType) -> None:
    chosen = stages.settings(["study=runs/nuclei", "photo=a b.png", "score=0.4"])
    assert (chosen.study, chosen.photo, chosen.score) == (Path("runs/nuclei"), Path("a b.png"), 0.4)
    assert chosen.out == Path("docs/methods/pictures")
    for wrong in (["study=runs/nuclei"], ["study=a", "photo=b", "colour=red"], ["study=a", "photo=b", "score=high"]):
        with pytest.raises(ConfigError, match="expected study=FOLDER photo=FILE"):
            stages.settings(wrong)


def test_the_first_finished_seed_of_each_method_is_drawn(
    stages: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = []
    for name, seed, state in (("htc", 0, "failed"), ("htc", 1, "done"), ("htc", 2, "done"), ("solo", 0, "running")):
        folder = tmp_path / f"{name}-crowded-seed{seed}"
        folder.mkdir()
        (folder / "config.yaml").write_text(f"method: {{_target_: maskbench.methods.{name}.Class}}\n")
        runs.append(Run(folder, f"{name}-crowded", seed, "0", state))
    monkeypatch.setattr(stages, "read_runs", lambda study: runs)
    assert stages.first_seeds(tmp_path) == {"htc": runs[1]}
    monkeypatch.setattr(stages, "read_runs", lambda study: runs[-1:])
    with pytest.raises(RunError, match="no run in it is finished"):
        stages.first_seeds(tmp_path)


def test_what_they_were_made_of_is_said_without_a_path_of_the_machine(stages: ModuleType, tmp_path: Path) -> None:
    chosen = stages.Settings(tmp_path / "runs" / "nuclei", tmp_path / "a.png", score=0.4, credit="CC0")
    run = Run(tmp_path / "htc-seed0", "htc", 0, "0", "done", keys={"environment": Key("", {"commit": "abc"})})
    said = stages.origin(chosen, {"htc": run})
    assert "study=runs/nuclei photo=a.png score=0.4" in said
    assert "| [htc](htc.png) | htc-seed0 | `abc` |" in said
    assert str(tmp_path) not in said
