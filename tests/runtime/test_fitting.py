"""Fitted settings on their way into a trial: before it has a name, unless the command line says otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from maskbench.data import shapes
from maskbench.data.fitting.rules import Fitted
from maskbench.errors import ConfigError
from maskbench.runtime import training
from maskbench.runtime import trial as module
from maskbench.runtime.compose import build
from maskbench.runtime.fitting import applied, as_yaml, said
from maskbench.runtime.trial import Composed, identify
from maskbench.sweep.identity import fairness
from maskbench.sweep.settings import settings
from trained import composed

ROOT = Path(__file__).resolve().parents[2]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if "_target_" in path.read_text())
VARIANTS = sorted(
    path.relative_to(ROOT / "conf" / "method").with_suffix("").as_posix()
    for path in (ROOT / "conf" / "method").rglob("*.yaml")
    if path.read_text().startswith("# @package")
)
DRAWN = ("data.root.images=16", "data.root.val_images=4", "data.root.size=64", "data.tune_share=0.25", "data.batch=2")


def identified(*overrides: str) -> Composed:
    cfg = composed("train", [*DRAWN, *overrides])
    hydra = HydraConfig.get()
    return identify(cfg, hydra.runtime.choices, hydra.overrides.task)


def values(trial: Composed) -> dict[str, object]:
    return {each.setting: each.value for each in trial.fitted}


SMALL = ("transforms.eval.short=64", "fit=true")


def shared(trial: Composed) -> dict[str, object]:
    return {name: value for name, value in values(trial).items() if not name.startswith("method.")}


@pytest.fixture(scope="module")
def footing() -> dict[str, object]:
    """What is fitted for one method and is no setting of its own."""
    return shared(identified("method=small/semantic", *SMALL))


def test_what_a_command_line_names() -> None:
    words = ["method=small/solov2", "method/pool=roi_warp", "fit=true", "+trainer.max_steps=3", "data.batch=4"]
    assert said([*words, "~logger.mode", "transforms.eval={short: 64}"]) == {
        "trainer.max_steps",
        "data.batch",
        "logger.mode",
        "transforms.eval",
    }


def test_a_fitted_trial_holds_what_was_fitted_and_has_a_name_of_its_own() -> None:
    plain, trial = identified("method=small/solov2"), identified("method=small/solov2", "fit=true")
    assert trial.folder.name != plain.folder.name
    assert trial.cfg.fit is True
    assert values(trial)["method.grids"] == trial.cfg.method.grids != plain.cfg.method.grids
    assert all(OmegaConf.select(trial.cfg, each.setting) == each.value for each in trial.fitted)
    assert trial.cfg.transforms.train.short == trial.cfg.transforms.eval.short == 128  # which refers to it


def test_without_a_fit_a_trial_is_what_it_was_before_there_was_one() -> None:
    plain = identified("method=small/solov2")
    assert "fit" not in plain.settings
    assert plain.fitted == ()


def test_what_is_fitted_stands_in_the_footing() -> None:
    """So that no table has a fitted trial beside one that is not, also where no setting of the method has moved."""
    key = [
        fairness(trial.settings, trial.fingerprint, {})["footing"]
        for trial in (identified("method=small/semantic", fit) for fit in ("fit=true", "fit=false"))
    ]
    assert key[0]["fields"]["fit"] is True
    assert "fit" not in key[1]["fields"]
    assert key[0]["key"] != key[1]["key"]


def test_the_command_line_wins() -> None:
    trial = identified(
        "method=small/solov2", "fit=true", "method.grids=[10,8,6,4,2]", "trainer.max_epochs=3", "evaluation=crowded"
    )
    assert trial.cfg.method.grids == [10, 8, 6, 4, 2]
    assert trial.cfg.trainer.max_epochs == 3
    assert "method.grids" not in values(trial)
    assert values(trial)["evaluation.point.max_instances"] == 400  # the choice of a group is where fitting starts


def test_trained_weights_keep_the_settings_of_their_method(tmp_path: Path) -> None:
    weights = tmp_path / "theirs.safetensors"
    weights.write_bytes(b"weights")
    trial = identified("method=small/solov2", "fit=true", f"weights='{weights}'")
    assert shared(trial) == values(trial)
    assert "transforms.eval.short" in values(trial)


def test_a_misspelt_wish_is_told() -> None:
    with pytest.raises(ConfigError, match="fit=maybe: expected true or false"):
        identified("fit=maybe")


def test_what_is_fitted_does_not_depend_on_where_the_data_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shapes.draw(cache=tmp_path, images=12, val_images=2, size=64)
    second = Path(shutil.copytree(first, tmp_path / "elsewhere"))
    found = []
    for place in (first, second):
        monkeypatch.setenv("MASKBENCH_CACHE", str(tmp_path / f"cache of {place.name}"))
        words = [f"data.root='{place}'", "data=coco", "method=small/mask_rcnn", "fit=true"]
        cfg = composed("train", words)
        found.append(identify(cfg, HydraConfig.get().runtime.choices, HydraConfig.get().overrides.task))
    assert found[0].folder == found[1].folder
    assert found[0].fitted == found[1].fitted != ()


def test_seeds_of_a_sweep_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = identified("method=small/solov2", "fit=true", "seed=0", "data.root.seed=5")
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("fitted again"))
    assert identified("method=small/solov2", "fit=true", "seed=1", "data.root.seed=5").fitted == one.fitted


def test_a_file_has_the_reason_above_each_value() -> None:
    found = [
        Fitted("method.grids", [12, 8], "Because."),
        Fitted("evaluation.point.max_instances", 100, "All of them. " * 20),
        Fitted("method.unit", 1e8, "Far."),
    ]
    text = as_yaml(found, ["Head: one.", "Two."])
    assert text.startswith("# @package _global_\n# Head: one.\n# Two.\nmethod:\n  # Because.\n  grids: [12, 8]\n")
    assert max(map(len, text.splitlines())) <= 120
    assert OmegaConf.create(text) == {
        "method": {"grids": [12, 8], "unit": 1e8},
        "evaluation": {"point": {"max_instances": 100}},
    }


def test_a_list_is_put_in_the_place_of_one_that_is_longer() -> None:
    cfg = OmegaConf.create({"a": {"b": [1, 2, 3], "c": "${a.b}"}})
    assert applied(cfg, [Fitted("a.b", [4], "why")]) == {"a": {"b": [4], "c": [4]}}
    assert cfg.a.b == [1, 2, 3]


@pytest.mark.parametrize("method", METHODS)
def test_a_fitted_method_trains_on_the_footing_of_all(method: str, footing: dict[str, object]) -> None:
    trial = identified(f"method=small/{method}", *SMALL)
    assert shared(trial) == footing
    assert len(trial.fitted) > len(footing), "a rule fits a setting of the method"
    data, built = build(trial.cfg)
    torch.stack(list(built.train().loss(next(iter(data.train_dataloader()))).values())).sum().backward()
    assert all(weight.grad is not None for weight in built.parameters() if weight.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *VARIANTS])
def test_every_size_and_variant_of_a_method_can_be_fitted_and_built(method: str) -> None:
    trial = identified(f"method={method}", "fit=true")
    build(trial.cfg)


def test_a_run_keeps_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(cfg: DictConfig) -> None:
        raise EOFError

    monkeypatch.setattr(training, "build", cut)
    trial = identified("method=small/solov2", "fit=true", "trainer.max_epochs=1", f"runs={tmp_path}")
    with pytest.raises(EOFError):
        training.train(trial, lambda: None)
    kept = OmegaConf.load(trial.folder / "fitted.yaml")
    assert kept.method.grids == settings(trial.folder)["method"]["grids"]
    assert "lose the cell of their centre" in (trial.folder / "fitted.yaml").read_text()
    assert "trainer" not in kept  # whose length the command line names
