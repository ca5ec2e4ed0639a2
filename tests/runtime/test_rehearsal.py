from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb

from maskbench.errors import ConfigError, DashboardError
from maskbench.methods.solov2 import SOLOv2
from maskbench.runtime.rehearsal import rehearse
from maskbench.runtime.trial import comes_first
from maskbench.sweep.status import OWNER
from trained import TINY, composed

CHOICES = {"method": "small/solov2"}


def rehearsed(*settings: str) -> None:
    rehearse(composed("train", [*TINY, "logger=none", *settings]))


def test_a_rehearsal_takes_no_memory_and_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = SOLOv2.__init__

    @functools.wraps(whole)
    def watched(self: SOLOv2, **settings: Any) -> None:
        whole(self, **settings)
        made.append({weight.device.type for weight in self.parameters()})

    monkeypatch.setattr(SOLOv2, "__init__", watched)
    monkeypatch.setattr("maskbench.data.shapes.draw", None)
    rehearsed("data.root=/nowhere")
    assert made == [{"meta"}]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["seed=-1"], "seed=-1: expected 0 to"),
        (["out_of_memory=quarter"], "out_of_memory=quarter: expected one of fail, halve"),
        (["threads=0"], "threads=0: expected 1 or more"),
        (["trainer.max_epochs=-1"], "has to know its end"),
        (["data.divisor=20"], "data.divisor=20: expected a multiple of the coarsest stride, 32"),
        (["data.batch=2.5"], "data.batch=2.5: expected a whole number"),
        (["protocol=equal_time"], "needs its budget: set protocol.minutes"),
        (["optim.warmup=7"], "optim.warmup=7: expected a share"),
        (["optim.optimiser.lr=-1"], r"^optim: nothing can be made .*ValueError at \w+\.py:\d+: Invalid learning rate"),
        (["method.width=-3"], r"^method: nothing can be made of these settings \(RuntimeError at \w+\.py:\d+: "),
        (["method.grids=[1,2]"], "one grid and one range per level"),
        (["method._target_=torch.nn.Identity"], r"^method\._target_=torch\.nn\.Identity: expected a .*\.Segmenter"),
        (["~backbone.name"], "^backbone: nothing can be made .* missing .*'name'"),
        (["trainer.accelerator=tpuu"], "Lightning can't take these settings: .*invalid accelerator"),
    ],
)
def test_what_contradicts_itself_is_told(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        rehearsed(*settings)


def test_a_method_that_asks_for_values_is_built_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    whole = SOLOv2.__init__

    @functools.wraps(whole)
    def asking(self: SOLOv2, **settings: Any) -> None:
        whole(self, **settings)
        devices.append(next(self.parameters()).device.type)
        assert torch.zeros(1).item() == 0

    monkeypatch.setattr(SOLOv2, "__init__", asking)
    rehearsed()
    assert devices == ["meta", "cpu"]


def test_a_method_of_another_package_needs_no_trust_on_a_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its config lies in that package, as `hydra.searchpath` finds it, and it is trained as ours are."""
    (tmp_path / "article/conf/method").mkdir(parents=True)
    (tmp_path / "article/__init__.py").touch()
    (tmp_path / "article/conf/__init__.py").touch()
    (tmp_path / "article/nets.py").write_text(
        "from maskbench.methods.solov2 import SOLOv2\n"
        "class Net(SOLOv2):\n"
        "    def __init__(self, *, twice: int = 1, **others) -> None:\n"
        "        super().__init__(width=16 * twice, **others)\n"
    )
    (tmp_path / "article/conf/method/net.yaml").write_text("_target_: article.nets.Net\ntwice: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = [*TINY[1:], "logger=none", "hydra.searchpath=[pkg://article.conf]", "method=net", "method.twice=2"]
    rehearse(composed("train", words))
    with pytest.raises(
        ConfigError, match=r"no setting method\.thrice: article\.nets\.Net takes none; did you mean twice"
    ):
        rehearse(composed("train", [*words, "+method.thrice=3"]))


@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (wandb.errors.UsageError("No API key configured."), ConfigError, "No API key configured.*wandb login"),
        (wandb.errors.CommError("timed out"), DashboardError, r"can't be reached .*timed out.*logger\.mode=offline"),
    ],
)
def test_who_logs_live_is_known_before_training(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception], told: str
) -> None:
    def login() -> None:
        raise error

    monkeypatch.setattr(wandb, "login", login)
    rehearse(composed("train", TINY))  # nobody is asked where runs are logged offline
    with pytest.raises(raised, match=told):
        rehearse(composed("train", [*TINY, "logger.mode=online"]))


def test_a_first_run_is_rehearsed_before_its_data_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = composed("train", [*TINY, f"runs={tmp_path}"])
    assert comes_first(cfg, CHOICES)
    monkeypatch.setenv(OWNER, "a sweep")  # whose table wants its reason
    assert not comes_first(cfg, CHOICES)
    monkeypatch.delenv(OWNER)
    (tmp_path / "try" / "solov2-small-seed0-01234567").mkdir(parents=True)  # it may be done
    assert not comes_first(cfg, CHOICES)
