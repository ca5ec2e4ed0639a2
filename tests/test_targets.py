from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from maskbench.targets import CLASSES, ONES, SETTINGS, TRUSTED, reference, refusal, targets


def test_all_that_the_configs_call_may_be_called(root: Path) -> None:
    """A new `_target_` in conf is a class or function of the networks, or stands in the table."""
    files = [path for path in (root / "conf").rglob("*.yaml") if "hydra" not in path.parts]
    found = [(path.name, OmegaConf.to_container(OmegaConf.load(path))) for path in files]
    called = [node["_target_"] for _, settings in found for _, node in targets(settings)]
    assert {"maskbench.methods.solov2.SOLOv2", "torch.optim.AdamW", "albumentations.HorizontalFlip"} <= set(called)
    assert {name: reason for name, settings in found if (reason := refusal(settings))} == {}
    assert ONES | SETTINGS.keys() <= {*called}, "what no config names has no business in the table"


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.hub.load",
        "torch.load",
        "torch.optim.lr_scheduler.os.system",
        "lightning.Trainer.save_checkpoint",
        "lightning.pytorch.Trainer",
        "albumentations.from_dict",
        "albumentations.core.serialization.load",
        "albumentations.os.system",
        "wandb.login",
        "hydra.utils.call",
        "functools.partial",
        "maskbench.atomic.replace_text",
        "maskbench.atomic.os.system",
        "maskbench.train.main",
        "maskbench.runtime.run_folder.write_json",
        "maskbench.nn.backbone.torch",
        "maskbench.nn.backbone._load",
        "maskbench.nn.backbone.Backbone.load_state_dict",
        "maskbench.methods.solov2",
        "maskbench.methods.nowhere.Thing",
        "maskbench.methods.solov2.SOLOv2\n",
        "maskbench.methods..solov2.SOLOv2",
        "",
        None,
        3,
        ["os.system"],
    ],
)
def test_nothing_else_may(target: Any) -> None:
    assert "would run what is no part of maskbench" in (refusal({"_target_": target}) or "")


def test_names_are_found_however_deep_they_lie() -> None:
    deep = {"method": {"_target_": "maskbench.methods.solov2.SOLOv2", "parts": [1, [{"a": {"_target_": "os.system"}}]]}}
    assert (refusal(deep) or "").startswith("method.parts[1][0].a._target_=os.system would run")
    assert refusal({"method": {"_target": "os.system", "target": "os.system"}}) is None


def test_whom_the_user_names_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"method": {"_target_": "paper.nets.Net"}}
    assert f"say so before the command: {TRUSTED}=paper " in (refusal(settings) or "")
    monkeypatch.setenv(TRUSTED, "other, paper")
    assert refusal(settings) is None
    assert refusal({"_target_": "paperback.Net"}) is not None
    assert refusal({"_target_": "os.system"}) is not None
    monkeypatch.setenv(TRUSTED, "")
    assert refusal(settings) is not None


def test_a_logger_says_nothing_of_where_a_login_goes() -> None:
    node = {"_target_": "wandb.init", "mode": "online", "settings": {"_target_": "wandb.Settings", "silent": True}}
    assert refusal({"logger": node}) is None
    node["settings"]["base_url"] = "https://elsewhere"
    assert "logger.settings._target_=wandb.Settings with base_url would run" in (refusal({"logger": node}) or "")


@pytest.mark.parametrize("library", ["albumentations", "torch.optim"])
def test_what_a_library_calls_by_a_capital_letter_is_a_class_of_its_own(library: str) -> None:
    names = [name for name in dir(importlib.import_module(library)) if CLASSES.fullmatch(f"{library}.{name}")]
    assert len(names) > 10
    for name in names:
        kind = getattr(importlib.import_module(library), name)
        assert isinstance(kind, type)
        assert kind.__module__.startswith(library)


@pytest.mark.parametrize("value", ["${oc.env:HOME}", ["a", {"b": "x ${c}"}], {"${a}": 1}])
def test_what_refers_to_something_else_is_found(value: Any) -> None:
    assert "${" in (reference({"method": {"width": value}}) or "")
    assert reference({"a": ["$", "{}", 1, None, {"b": "$x"}]}) is None
