"""The length of a training and its learning rate follow from the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maskbench.errors import ConfigError
from maskbench.evaluation.cost import count_flops
from maskbench.runtime import plan as planning
from maskbench.runtime.compose import build
from maskbench.runtime.history import read_rows
from maskbench.runtime.plan import Plan, make_plan
from maskbench.runtime.run_folder import RunFolder, read_json
from maskbench.train import train
from trained import TINY, call, composed

IMAGES = 12
"""Of train in `TINY`, beside tune."""


def planned(tmp_path: Path, *overrides: str) -> tuple[Plan, Any]:
    cfg = composed("train", (*TINY, *overrides))
    data, method = build(cfg)
    before = [weight.clone() for weight in method.parameters()]
    plan = make_plan(cfg, data, method, RunFolder(tmp_path))
    assert all(map(torch.equal, before, method.parameters())), "what is measured is a copy"
    return plan, plan.applied(cfg)


def test_equal_images_are_the_epochs_that_are_asked_for(tmp_path: Path) -> None:
    plan, cfg = planned(tmp_path / "whole", "trainer.max_epochs=8")
    assert (plan.epochs, plan.lr_factor, plan.cost, plan.spent) == (8, 1, {}, {})
    assert (cfg.trainer.max_epochs, cfg.optim.optimiser.lr) == (8, 1e-4)
    plan, cfg = planned(tmp_path / "half", "trainer.max_epochs=8", "protocol.share=0.5", "protocol.lr_factors=[3]")
    assert (plan.epochs, plan.tuning_epochs) == (4, 1)
    assert (cfg.trainer.max_epochs, cfg.optim.optimiser.lr) == (4, pytest.approx(3e-4))


def test_equal_compute_buys_as_many_epochs_as_its_steps_cost(tmp_path: Path) -> None:
    data, method = build(composed("train", TINY))
    batch = next(iter(data.train_dataloader()))
    step = count_flops(lambda: torch.stack(list(method.loss(batch).values())).sum().backward()) / len(batch)
    budget = 3.2 * IMAGES * step / 1e12
    plan, _ = planned(tmp_path / "budget", "protocol=equal_compute", f"protocol.tflops={budget}")
    assert plan.epochs == 3
    assert plan.cost["tflops"] == pytest.approx(step / 1e12, rel=0.1)
    assert plan.spent["tflops"] == pytest.approx(3 * IMAGES * plan.cost["tflops"])
    with pytest.raises(ConfigError, match=r"protocol.tflops=.*one epoch of this method takes"):
        planned(tmp_path / "little", "protocol=equal_compute", f"protocol.tflops={budget / 10}")


def test_equal_time_is_told_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 4))  # each step takes four seconds, for images of batches of eight and of four
    monkeypatch.setattr(planning.time, "perf_counter", lambda: next(seconds))
    plan, _ = planned(tmp_path, "data.batch=4", "protocol=equal_time", "protocol.minutes=1")
    assert plan.cost["minutes"] == pytest.approx(1 / 60)
    assert plan.epochs == 5, "60 seconds, 12 images of a second each"
    again, _ = planned(tmp_path, "data.batch=4", "protocol=equal_time", "protocol.minutes=1")
    assert again == plan, "as it was written down: a run that goes on does not measure anew"


def test_the_learning_rate_is_chosen_on_tune_and_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def worth(cfg: Any, data: Any, run: Any) -> float:
        tried.append((cfg.trainer.max_epochs, cfg.optim.optimiser.lr))
        if len(tried) == 3:
            raise KeyboardInterrupt
        return {1e-4: 0.2}.get(round(cfg.optim.optimiser.lr, 6), 0.1)

    monkeypatch.setattr(planning, "_tune_ap", worth)
    overrides = ("protocol=tuned", "trainer.max_epochs=8")
    with pytest.raises(KeyboardInterrupt):
        planned(tmp_path, *overrides)
    assert tried == [(2, pytest.approx(0.333e-4)), (2, 1e-4), (2, pytest.approx(3e-4))]
    plan, cfg = planned(tmp_path, *overrides)
    assert len(tried) == 4, "what was tried before the interruption is kept"
    assert (plan.tried, plan.lr_factor) == ({"0.333": 0.1, "1.0": 0.2, "3.0": 0.1}, 1)
    assert Plan(**json.loads((tmp_path / "plan.json").read_text())) == plan
    assert cfg.trainer.max_epochs == 8


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["protocol=equal_time"], "set protocol.minutes"),
        (["protocol=equal_compute"], "set protocol.tflops"),
        (["protocol=equal_compute", "protocol.minutes=2"], "set protocol.tflops"),
        (["protocol.share=0"], "protocol.share=0"),
        (["protocol.lr_factors=[]"], "protocol.lr_factors"),
        (["protocol=tuned", "data.tune_share=0"], "chosen by AP on tune"),
        (["protocol=equal_time", "protocol.minutes=1", "protocol.tflops=1"], "two budgets"),
        (["protocol=equal_time", "protocol.minutes=1", "trainer.devices=2"], "on one device"),
        (["protocol=tuned", "trainer.max_epochs=null"], "plans in epochs"),
        (["protocol=equal_compute", "protocol.tflops=1", "+trainer.max_steps=9"], "plans in epochs"),
        (["trainer.max_epochs=-1", "protocol.share=0.5"], "plans in epochs"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(settings: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(tmp_path, *settings)


def test_a_tuned_run_says_what_it_tried(tmp_path: Path) -> None:
    settings = (
        "protocol=tuned",
        "protocol.lr_factors=[1,10]",
        "trainer.max_epochs=2",
        "speed.enabled=false",
        "logger=none",
    )
    metrics = call(train, *TINY, *settings, f"runs={tmp_path}")
    run = Path(metrics["run"])
    assert set(metrics["plan"]["tried"]) == {"1.0", "10.0"}
    assert metrics["plan"] == read_json(run / "plan.json")
    assert metrics["images_seen"] == 2 * IMAGES
    fields = read_json(run / "fairness.json")["footing"]["fields"]
    assert (fields["protocol.name"], fields["protocol.lr_factors"]) == ("tuned", [1, 10])


def test_the_learning_rate_of_the_plan_is_the_one_that_is_trained_with(tmp_path: Path) -> None:
    rates = {}
    for factor in (1, 10):
        settings = (f"protocol.lr_factors=[{factor}]", "trainer.max_epochs=1", "speed.enabled=false", "logger=none")
        folder = Path(call(train, *TINY, *settings, f"runs={tmp_path / str(factor)}")["run"])
        assert read_json(folder / "plan.json")["lr_factor"] == factor
        rates[factor] = float(read_rows(folder / "history.csv")[0]["lr"])
    assert rates[10] == pytest.approx(10 * rates[1])
