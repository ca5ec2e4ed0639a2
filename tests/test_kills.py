"""SIGKILL leaves no time to say anything: what stands on the disc has to be enough, whenever it comes."""

from __future__ import annotations

import os
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
import os, random, signal, socket, sys, time, traceback
from maskbench.runtime import training
from maskbench.train import train
from trained import call

kills, ranks, *settings = sys.argv[1:]
training.judge = lambda *_: {}  # the weights are there by then

def start(study):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": ranks}
    return [fork(study, meet, rank) for rank in range(int(ranks))]

def fork(study, meet, rank):
    if pid := os.fork():
        return pid
    if ranks != "1":
        os.environ |= meet | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    code = 1
    try:
        call(train, *settings, f"study={study}")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

def end(pids):
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * len(pids)

began = time.monotonic()
end(start("whole"))
seconds = time.monotonic() - began
moments = random.Random(0)
for kill in range(int(kills)):
    pids = start(f"killed{kill}")
    time.sleep(moments.uniform(0, seconds))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    end(start(f"killed{kill}"))
"""


def weights(study: Path) -> dict[str, torch.Tensor]:
    (run,) = (path for path in study.iterdir() if path.name.startswith("mask_rcnn"))
    assert Status.read(run).state == "done"
    return read_checkpoint(run / "checkpoints" / LAST)["state_dict"]


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


DEVICES = ("trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_killed_at_any_moment_ends_with_the_weights_of_one_that_is_not(
    ranks: int, tmp_path: Path
) -> None:
    """The importing process forks those of each life, which would spend most of it on importing."""
    settings = [*SETTINGS, "trainer.max_epochs=3", f"runs={tmp_path}", *(DEVICES if ranks > 1 else ["data.workers=2"])]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", FORKS, str(KILLS), str(ranks), *settings]
    ended = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1800)
    assert ended.returncode == 0, ended.stderr[-4000:]
    whole = weights(tmp_path / "whole")
    for kill in range(KILLS):
        assert_equal(weights(tmp_path / f"killed{kill}"), whole)
    assert ended.stderr.count("goes on after epoch") >= KILLS / 4  # the others had come nowhere, or were at their end
    assert ranks > 1 or " batches\n" in ended.stderr


def test_a_process_does_not_outlive_the_one_that_leads(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "maskbench.train",
        *SETTINGS,
        *DEVICES,
        "trainer.max_epochs=50",
        f"runs={tmp_path}",
    ]
    leader = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 180
    while not list(tmp_path.glob(f"try/*/checkpoints/{LAST}")):
        assert leader.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(members(leader.pid)) >= 2
    leader.kill()
    leader.wait()
    deadline = time.monotonic() + 60
    while members(leader.pid):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.1)


def members(group: int) -> list[str]:
    return subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True).stdout.split()
