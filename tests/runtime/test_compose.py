from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from maskbench.errors import ConfigError, WeightsError
from maskbench.nn.backbone import Backbone
from maskbench.runtime.compose import build, build_method, make
from maskbench.runtime.verb import config_folder
from trained import TINY, composed

GROUPS = ("backbone", "optim", "trainer", "logger", "experiment")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((config_folder() / group).glob("*.yaml"))]


def test_make_calls_the_target_with_settings_and_objects() -> None:
    thing = object()
    node = OmegaConf.create({"_target_": "builtins.dict", "numbers": [[1, 2], [3, 4]]})
    assert make(node, given=thing) == {"numbers": ((1, 2), (3, 4)), "given": thing}


def test_what_is_given_is_no_setting() -> None:
    node = OmegaConf.create({"_target_": "builtins.dict", "callbacks": []})
    with pytest.raises(ConfigError, match=r"callbacks of builtins\.dict: found in the config, but maskbench sets it"):
        make(node, callbacks=[object()], logger=False)


def test_our_errors_arrive_as_they_were_raised() -> None:
    backbone = {"_target_": "maskbench.nn.backbone.Backbone", "name": "resnet18", "weights": "nowhere.pth"}
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        make(backbone)
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):  # from inside another part as well
        make({"_target_": "builtins.dict", "part": backbone})


def test_a_class_that_is_not_there_is_told() -> None:
    told = r"not found \(No module named 'maskbench.no_such_thing'\)\. .* installed for .*, or its folder in PYTHONPATH"
    with pytest.raises(ConfigError, match=rf"^maskbench\.no_such_thing: {told}"):
        make({"_target_": "maskbench.no_such_thing"})
    with pytest.raises(ConfigError, match=r"^nobody\.method\.Cores: not found \(No module named 'nobody'\)"):
        make({"_target_": "builtins.dict", "part": {"_target_": "nobody.method.Cores"}})


def test_what_is_no_method_is_refused() -> None:
    cfg = composed("train", TINY)
    cfg.method = {"_target_": "torch.nn.Identity"}
    with pytest.raises(
        ConfigError, match=r"method\._target_=torch\.nn\.Identity: expected a .*, and that makes a Identity"
    ):
        build_method(cfg, ("disc",))


def test_what_is_wrong_in_a_module_is_no_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unfinished.py").write_text("undefined\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException, match=r"Error locating target 'unfinished\.Method'"):
        make({"_target_": "unfinished.Method"})


def test_the_method_is_drawn_from_the_seed_alone() -> None:
    cfg = composed("train", TINY)
    first, again = (build_method(cfg, ("disc",)).state_dict() for _ in range(2))
    assert all((first[name] == again[name]).all() for name in first)
    cfg.seed = 1
    other = build_method(cfg, ("disc",)).state_dict()
    assert any((first[name] != other[name]).any() for name in first)


def test_data_come_first_and_give_the_classes() -> None:
    data, method = build(composed("train", TINY))
    assert method.classes == data.classes == ("disc", "rectangle", "triangle")
    assert method.point.max_instances == 100
    assert data.seed == 0


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_config_of_a_group_composes(group: str, choice: str) -> None:
    cfg = composed("train", [f"{group}={choice}", "data.root=somewhere"])
    assert isinstance(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), dict)
    if group in ("optim", "trainer"):
        make(cfg[group], **({"logger": False} if group == "trainer" else {}))


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "backbone"])
def test_every_backbone_can_be_built(choice: str) -> None:
    cfg: Any = composed("train", [f"backbone={choice}", "backbone.weights=scratch"])
    backbone: Backbone = make(cfg.backbone)
    assert backbone.strides == (4, 8, 16, 32)


def test_a_wrong_setting_is_an_error_of_ours() -> None:
    cfg = composed("train", ["backbone.name=resnet19"])
    with pytest.raises(ConfigError, match="no model 'resnet19'"):
        make(cfg.backbone)


def test_the_configs_lie_where_the_verbs_look(root: Path) -> None:
    assert config_folder() == root / "conf"
