"""Real trainings in a sweep in which all goes wrong that can; `tests/sweep` does it with processes that pretend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maskbench.study.runs import read_runs
from trained import TINY

pytestmark = pytest.mark.slow

METHOD = """
import os, signal, time
from pathlib import Path
import torch
from maskbench.methods.solov2 import SOLOv2

FAULTS = {1: "raises", 5: "killed", 6: "hangs", 7: "memory"}

class Faulty(SOLOv2):
    def __init__(self, number=0, **settings):
        super().__init__(**settings)
        self.fault, self.mark = FAULTS.get(number), Path(os.environ["MASKBENCH_CHAOS"]) / str(number)

    def training_step(self, batch, batch_idx):
        first = not self.mark.exists()
        self.mark.touch()
        if self.fault == "raises": raise ValueError("no luck today")
        if self.fault == "memory": raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.fault == "killed" and first: os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hangs" and first: time.sleep(10_000)
        return super().training_step(batch, batch_idx)
"""
CONFIG = """
defaults:
  - small/solov2
  - _self_
_target_: faulty.Faulty
number: 0
"""


def test_twelve_trainings_of_which_some_fail_and_a_parent_that_is_killed(tmp_path: Path) -> None:
    for folder in ("conf/method", "marks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "faulty.py").write_text(METHOD)
    (tmp_path / "conf/method/faulty.yaml").write_text(CONFIG)
    numbers = ",".join(str(number) for number in range(12))
    settings = [*TINY[1:], "method=faulty", f"method.number={numbers}", "trainer.max_epochs=1", "logger=none"]
    launcher = [
        "hydra.launcher.slots=2",
        "hydra.launcher.silence_minutes=1.5",
        f"hydra.searchpath=[file://{tmp_path}/conf]",
    ]
    command = [sys.executable, "-m", "maskbench.train", "-m", *settings, *launcher, f"runs={tmp_path}/runs"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "MASKBENCH_CHAOS": str(tmp_path / "marks")}
    study = tmp_path / "runs" / "try"
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 300
        while len(list(study.glob("*/metrics.json"))) < 2:
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while processes(study):
        assert time.monotonic() < deadline, "they outlive the sweep"
        time.sleep(0.1)
    done = {path.parent.name for path in study.glob("*/metrics.json")}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 3, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert done <= set(told["kept"])
    assert (len(told["done"]) + len(told["kept"]), len(told["failed"])) == (10, 2)
    rows = read_runs(study)
    assert len(rows) == 12
    reasons = {run.reason for run in rows if run.state == "failed"}
    assert any(reason.startswith("ValueError: no luck today") for reason in reasons)
    assert any("memory ran out when 2.00 GiB more were asked for" in reason for reason in reasons)
    assert "killed by SIGKILL" in ended.stderr
    assert "no sign of life for" in ended.stderr
    assert not processes(study)


def processes(study: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-f", f"maskbench.train .*{study.parent}"], capture_output=True, text=True)
    return found.stdout.split()
