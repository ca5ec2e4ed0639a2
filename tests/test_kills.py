"""SIGKILL leaves no time to say anything: what stands on the disc has to be enough, whenever it comes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maskbench.runtime.checkpoints import LAST, read_checkpoint
from maskbench.sweep.status import Status
from trained import TINY

pytestmark = pytest.mark.slow

KILLS = 20

SETTINGS = (
    "method=small/mask_rcnn",  # which draws while it trains
    *TINY[1:],
    "data.root.images=28",  # an odd number of steps an epoch
    "data.root.val_images=1",
    "trainer.check_val_every_n_epoch=2",
    "checkpoint_minutes=0",
    "logger=none",
    "speed.enabled=false",
)

FORKS = """
import os, random, signal, sys, time, traceback
from maskbench.runtime import training
from maskbench.train import train
from trained import call

training.judge = lambda *_: {}  # the weights are there by then

def start(study):
    if pid := os.fork():
        return pid
    code = 1
    try:
        call(train, *sys.argv[2:], f"study={study}")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

began = time.monotonic()
assert os.waitpid(start("whole"), 0)[1] == 0
seconds = time.monotonic() - began
moments = random.Random(0)
for kill in range(int(sys.argv[1])):
    pid = start(f"killed{kill}")
    time.sleep(moments.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert os.waitpid(start(f"killed{kill}"), 0)[1] == 0
"""


def weights(study: Path) -> dict[str, torch.Tensor]:
    (run,) = (path for path in study.iterdir() if path.name.startswith("mask_rcnn"))
    assert Status.read(run).state == "done"
    return read_checkpoint(run / "checkpoints" / LAST)["state_dict"]


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


def test_a_run_that_is_killed_at_any_moment_ends_with_the_weights_of_one_that_is_not(tmp_path: Path) -> None:
    """The importing process forks one for each life, which would spend most of it on importing."""
    settings = [*SETTINGS, "trainer.max_epochs=3", f"runs={tmp_path}"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FORKS, str(KILLS), *settings]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    whole = weights(tmp_path / "whole")
    for kill in range(KILLS):
        assert_equal(weights(tmp_path / f"killed{kill}"), whole)
    assert ended.stderr.count("goes on after epoch") >= KILLS / 2
    assert "batches" in ended.stderr


class Pair:
    """Two processes at one training."""

    def __init__(self, runs: Path, study: str) -> None:
        devices = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=8"]
        self.study = runs / study
        command = [sys.executable, "-m", "maskbench.train", *SETTINGS, *devices, f"runs={runs}", f"study={study}"]
        self.log = (runs / f"{study}.log").open("ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def end(self) -> None:
        assert self.process.wait(timeout=600) == 0, Path(self.log.name).read_text()[-4000:]
        self.log.close()

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def comes_further(self) -> bool:
        """Wait until it has saved something; whether it goes on after that."""
        began = time.time()
        while self.process.poll() is None:
            if any(path.stat().st_mtime > began for path in self.study.glob(f"*/checkpoints/{LAST}")):
                return True
            time.sleep(0.02)
        return False


def test_two_processes_that_are_killed_again_and_again_end_with_the_weights_of_two_that_are_not(tmp_path: Path) -> None:
    whole = Pair(tmp_path, "whole")
    whole.end()
    moments, kills, studies = random.Random(0), 0, 0
    while kills < KILLS:
        pair = Pair(tmp_path, f"killed{studies}")
        if kills % 4 and not pair.comes_further():  # every fourth is killed before it has come anywhere
            pair.end()
            studies += 1
            continue
        time.sleep(moments.uniform(0, 1))
        pair.kill()
        kills += 1
    Pair(tmp_path, f"killed{studies}").end()
    for study in range(studies + 1):
        assert_equal(weights(tmp_path / f"killed{study}"), weights(tmp_path / "whole"))


def test_a_process_does_not_outlive_the_one_that_leads(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "led")
    assert pair.comes_further()
    ranks = subprocess.run(["pgrep", "-g", str(pair.process.pid)], capture_output=True, text=True).stdout.split()
    assert len(ranks) >= 2
    os.kill(pair.process.pid, signal.SIGKILL)
    pair.process.wait()
    deadline = time.monotonic() + 60
    while subprocess.run(["pgrep", "-g", str(pair.process.pid)], capture_output=True).returncode == 0:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.1)
