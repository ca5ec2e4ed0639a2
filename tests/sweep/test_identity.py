from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

from maskbench.sweep.identity import (
    UNSET,
    WITHOUT_EFFECT,
    canonical,
    fairness,
    method_name,
    parse_trial_name,
    trial_hash,
    trial_name,
    wandb_id,
)

ENVIRONMENT = {"device": "cpu", "threads": 1, "versions": {"torch": "2.15"}}


def config() -> dict[str, Any]:
    return {
        "data": {"root": {"_target_": "draw", "images": 2000}, "batch": 8, "workers": 0},
        "transforms": {"train": {"size": 128}, "eval": {"size": 128}},
        "backbone": {"name": "resnet18", "weights": "scratch", "options": {}},
        "method": {"_target_": "maskbench.methods.solov2.SOLOv2", "sigma": 0.2},
        "optim": {"optimiser": {"lr": 0.002}},
        "trainer": {"max_epochs": 5, "devices": 1, "precision": "bf16-mixed", "accelerator": "cpu"},
        "evaluation": {"score_threshold": 0.0, "max_instances": 100},
        "logger": {"mode": "offline"},
        "study": "shapes",
        "method_name": "solov2",
        "threads": None,
        "seed": 0,
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    cfg = copy.deepcopy(config())
    *groups, name = path.split(".")
    node = cfg
    for group in groups:
        node = node[group]
    node[name] = value
    return cfg


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.root", "/elsewhere"),
        ("data.workers", 4),
        ("trainer.accelerator", "gpu"),
        ("logger", {"mode": "online"}),
        ("study", "again"),
        ("threads", 2),
        ("preflight", "off"),
    ],
)
def test_a_setting_without_effect_keeps_the_trial(path: str, value: Any) -> None:
    assert trial_hash(changed(path, value), "f") == trial_hash(config(), "f")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("method.sigma", 0.3),
        ("data.batch", 16),
        ("trainer.max_epochs", 6),
        ("trainer.precision", "32-true"),
        ("trainer.devices", 8),
        ("trainer.strategy", "ddp"),
        ("evaluation.max_instances", 400),
        ("transforms.eval", {"size": 256}),
        ("a_setting_nobody_knows_yet", True),
    ],
)
def test_a_setting_that_counts_makes_another_trial(path: str, value: Any) -> None:
    assert trial_hash(changed(path, value), "f") != trial_hash(config(), "f")


@pytest.mark.parametrize(("path", "value"), UNSET.items())
def test_a_setting_that_came_later_leaves_earlier_trials_their_names(path: str, value: Any) -> None:
    assert trial_hash(changed(path, value), "f") == trial_hash(config(), "f")
    other = changed(path, 0.2)
    assert trial_hash(other, "f") != trial_hash(config(), "f")
    assert fairness(other, "f", ENVIRONMENT)["footing"]["fields"][path] == 0.2


def test_other_data_make_another_trial() -> None:
    assert trial_hash(config(), "one") != trial_hash(config(), "two")


def test_equal_values_have_one_spelling() -> None:
    assert canonical({"a": 1.0, "b": (1, 2.5), "c": True}) == {"a": 1, "b": [1, 2.5], "c": True}
    cfg = {"method": {"x": 1, "y": 2}, "seed": 0}
    assert trial_hash(cfg, "f") == trial_hash({"seed": 0.0, "method": {"y": 2, "x": 1}}, "f")


def test_every_exception_has_its_reason() -> None:
    assert all(reason.strip() for reason in WITHOUT_EFFECT.values())


@pytest.mark.parametrize(
    ("choice", "name"), [("solov2", "solov2"), ("small/solov2", "solov2-small"), ("a/b/htc", "htc-b-a")]
)
def test_the_method_leads_its_name(choice: str, name: str) -> None:
    assert method_name(choice) == name


def test_a_trials_name_can_be_read_back() -> None:
    name = trial_name("solov2-small", 12, trial_hash(config(), "f"))
    assert parse_trial_name(name) == ("solov2-small", 12, name[-8:])
    assert parse_trial_name("logs") is None
    assert parse_trial_name("solov2-seed0-short") is None


def test_methods_and_seeds_of_one_experiment_share_the_footing() -> None:
    one = fairness(config(), "f", ENVIRONMENT)
    other = changed("method", {"_target_": "maskbench.methods.mask_rcnn.MaskRCNN", "rois": 32})
    other |= {"seed": 3, "method_name": "mask_rcnn"}
    two = fairness(other, "f", ENVIRONMENT)
    assert {name for name in one if one[name] != two[name]} == {"method"}
    assert two["method"]["fields"] == {"method._target_": "maskbench.methods.mask_rcnn.MaskRCNN", "method.rois": 32}
    assert fairness(other | {"seed": 4}, "f", ENVIRONMENT) == two
    assert not [name for name in one["footing"]["fields"] if name.startswith(("method", "seed"))]


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("backbone.weights", "pretrained", "footing"),
        ("data.batch", 16, "footing"),
        ("trainer.devices", 8, "footing"),
        ("optim.optimiser.lr", 0.1, "footing"),
        ("transforms.train.size", 256, "footing"),
        ("transforms.eval.size", 256, "operating_point"),
        ("evaluation.score_threshold", 0.05, "operating_point"),
        ("trainer.precision", "32-true", "operating_point"),
        ("method.sigma", 0.3, "method"),
    ],
)
def test_a_setting_moves_exactly_one_key(path: str, value: Any, key: str) -> None:
    before = fairness(config(), "f", ENVIRONMENT)
    after = fairness(changed(path, value), "f", ENVIRONMENT)
    assert [name for name in before if before[name]["key"] != after[name]["key"]] == [key]
    assert after[key]["fields"][path] == value


def test_wandb_knows_the_runs_of_two_studies_apart() -> None:
    assert wandb_id("shapes", "solov2-seed0") != wandb_id("nuclei", "solov2-seed0")
    assert wandb_id("a/b: ü", "solov2-small-seed0") == "a-b----solov2-small-seed0"


def test_the_environment_is_a_key_of_its_own() -> None:
    one = fairness(config(), "f", ENVIRONMENT)
    two = fairness(config(), "f", ENVIRONMENT | {"threads": 2})
    assert one["environment"]["fields"]["versions.torch"] == "2.15"
    assert [name for name in one if one[name]["key"] != two[name]["key"]] == ["environment"]


def test_the_footing_knows_the_data_by_content() -> None:
    assert fairness(config(), "f", {})["footing"]["fields"]["data.fingerprint"] == "f"
    assert fairness(config(), "f", {})["footing"]["key"] != fairness(config(), "g", {})["footing"]["key"]


def test_who_only_watches_needs_no_torch() -> None:
    code = (
        "import sys, maskbench.sweep.pool, maskbench.sweep.ray, maskbench.sweep.slurm, maskbench.sweep.identity;"
        "import maskbench.study.report, maskbench.study.dashboard;"
        "print([name for name in ('torch', 'lightning', 'hydra', 'submitit', 'ray') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
