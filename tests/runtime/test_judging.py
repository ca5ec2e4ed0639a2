"""What is chosen from data is chosen on tune; test is told nothing but the outcome."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from maskbench.evaluate import evaluate
from maskbench.evaluation.deployment import tally
from maskbench.evaluation.matches import read_matches
from maskbench.methods.discriminative import Discriminative
from maskbench.methods.solov2 import SOLOv2
from maskbench.ops.cluster import MeanShift
from maskbench.runtime.checkpoints import read_checkpoint
from maskbench.runtime.compose import build_data
from maskbench.runtime.judging import Judgement
from maskbench.runtime.run_folder import load_method, read_json, write_json
from maskbench.structures import Batch, Instances
from maskbench.train import train
from trained import TINY, call, composed, run

__all__ = ["run"]


def test_the_deployment_point_is_chosen_on_tune_and_counted_on_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def knowing(self: SOLOv2, batch: Batch, batch_idx: int) -> list[Instances]:
        return self.ceiling(batch)

    monkeypatch.setattr(SOLOv2, "validation_step", knowing)
    metrics = call(train, *TINY, "trainer.max_epochs=1", f"runs={tmp_path}", "logger=none")
    point = metrics["deployment"]
    assert point["tune"]["f1"] > 0.9
    assert point["tune"]["threshold"] == point["test"]["threshold"] == point["threshold"]
    assert point["test"]["f1"] < 0.5, "test_step knows nothing"
    assert metrics["tune"]["segm"]["AP50"] > 0.9
    assert read_json(Path(metrics["run"]) / "speed.json")["deployment"]["fps"] > 0


def test_the_truth_of_test_is_read_once() -> None:
    judgement = Judgement(build_data(composed("train", TINY)), ("boxes", "centres"), max_instances=100)
    every = [judgement.found, judgement.ceiling, *judgement.given.values()]
    assert len(every) == 4
    assert all(each.truth is judgement.truth for each in every)


def test_nothing_that_is_chosen_has_seen_test(tmp_path: Path) -> None:
    """Two trials that differ in their test split alone choose the same, to the last bit of their weights."""

    def chosen(*test: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        settings = ("checkpoint=best", "speed.enabled=false", "logger=none", f"runs={tmp_path / str(len(test))}")
        metrics = call(train, *TINY, *settings, *test)
        state = read_checkpoint(Path(metrics["run"]) / "checkpoints/best.ckpt")["state_dict"]
        return {name: metrics.get(name) for name in ("tune", "checkpoint", "epochs")}, state

    first, second = chosen(), chosen("data.test_annotations=annotations/instances_train.json")
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(weight, second[1][name]) for name, weight in first[1].items())


def test_a_bandwidth_is_chosen_on_tune_and_stays_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def knowing(self: Discriminative, batch: Batch, batch_idx: int) -> list[Instances]:
        known = self.cluster == MeanShift(bandwidth=0.7, iterations=4)
        return self.ceiling(batch) if known else [Instances.empty(frame.photo) for frame in batch.frames]

    monkeypatch.setattr(Discriminative, "validation_step", knowing)
    small = ("method=small/discriminative", "method.bandwidths=[0.5,0.7,1.5]", "trainer.max_epochs=1", "data.batch=4")
    metrics = call(train, *TINY, *small, f"runs={tmp_path}", "logger=none", "speed.enabled=false")
    tried = metrics["fitted"]["bandwidth"]["tried"]
    assert metrics["fitted"]["bandwidth"]["value"] == 0.7
    assert (tried["0.5"], tried["1.5"]) == (0, 0)
    assert tried["0.7"] == metrics["tune"]["segm"]["AP"] > 0.5
    method = load_method(metrics["run"]).method
    assert isinstance(method, Discriminative)
    assert method.cluster == MeanShift(bandwidth=0.7, iterations=4)


def test_scoring_again_keeps_the_threshold_and_counts_anew(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / run.name)
    before = read_json(folder / "metrics.json")
    tuned = asdict(tally(read_matches(folder / "matches.npz"), 0.25))
    stale = {"threshold": 0.25, "tune": tuned, "test": {"f1": 7}}
    write_json(folder / "metrics.json", before | {"deployment": stale})
    again = call(evaluate, f"run={folder}")
    assert again["deployment"]["threshold"] == again["deployment"]["test"]["threshold"] == 0.25
    counted = again["deployment"]["test"].pop("counting")
    assert again["deployment"] == {"threshold": 0.25, "tune": tuned, "test": tuned}
    assert counted["overall"]["dic"] == pytest.approx((tuned["detections"] - tuned["truths"]) / before["images"])
    assert set(counted["per_class"]) == set(before["per_class"]["segm"])
    write_json(folder / "metrics.json", before | {"deployment": None})
    assert "deployment" not in call(evaluate, f"run={folder}")
