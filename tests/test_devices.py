"""Two processes of a CPU at one training, each with half of every batch, however they are started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maskbench.runtime.checkpoints import LAST, read_checkpoint
from maskbench.runtime.history import read_rows
from maskbench.runtime.run_folder import read_json
from maskbench.sweep.status import Status

pytestmark = pytest.mark.slow

SETTINGS = (
    "method=small/mask_rcnn",
    "data.root.images=16",
    "data.root.val_images=7",
    "data.root.size=64",
    "data.eval_batch=1",
    "data.tune_share=0.25",
    "trainer.max_epochs=2",
    "speed.images=1",
    "speed.enabled=false",
    "trainer.devices=2",
    "trainer.strategy=ddp",
    "trainer.accelerator=cpu",
)
TRAIN = (sys.executable, "-m", "maskbench.train")


def started(*command: str, **environment: str) -> dict[str, Any]:
    """The line of JSON with which it ends; there is only one, whatever the number of processes."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | environment)
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    return json.loads(line)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / LAST)["state_dict"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes that Lightning has started."""
    runs = tmp_path_factory.mktemp("devices")
    return Path(started(*TRAIN, *SETTINGS, f"runs={runs}", "study=two", "threads=1")["run"])


def test_two_devices_are_one_run(run: Path) -> None:
    """One status, one set of files, one W&B run."""
    assert (Status.read(run).state, Status.read(run).attempts) == ("done", 1)
    assert read_json(run / "metrics.json")["images_seen"] == 24
    assert len(list((run / "thumbnails").glob("*.jpg"))) == 7
    assert [row["epoch"] for row in read_rows(run / "history.csv")] == ["0", "1"]
    assert len(list((run.parent / "wandb").glob("offline-run-*"))) == 1


def test_two_processes_find_the_ap_of_one_to_the_last_digit(run: Path) -> None:
    """Seven photos are an odd number."""
    before = read_json(run / "metrics.json")
    found = started(sys.executable, "-m", "maskbench.evaluate", f"run={run}", "predict=true")
    assert before["segm"]["AP"] > 0
    for kind in ("segm", "bbox", "boundary"):
        assert found[kind] == before[kind]


def test_torchrun_starts_them_as_well(run: Path) -> None:
    runs = run.parent.parent
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    found = Path(started(*torchrun, TRAIN[-1], *SETTINGS, f"runs={runs}", "study=torchrun", "threads=1")["run"])
    assert found.name == run.name
    assert_equal(found, run)


@pytest.mark.parametrize("engine", ["pool", "ray"])
def test_a_sweep_starts_them_as_well(run: Path, engine: str) -> None:
    """Also where the sweep is started as a rank of something else."""
    runs = run.parent.parent
    sweep = (*TRAIN, "-m", f"hydra/launcher={engine}", *SETTINGS[:-4], *SETTINGS[-3:], "logger=none")
    found = started(*sweep, f"runs={runs}", f"study={engine}", RANK="1", LOCAL_RANK="0", WORLD_SIZE="4")
    assert found["done"] == [run.name]
    assert_equal(runs / engine / run.name, run)


def assert_equal(one: Path, two: Path) -> None:
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("method", ["mask_rcnn", "solov2", "discriminative"])
def test_a_process_whose_images_have_no_object_keeps_nobody_waiting(method: str, tmp_path: Path) -> None:
    words = (f"method=small/{method}", *SETTINGS[1:], "data.root.empty=0.9", "data.batch=2", "trainer.max_epochs=1")
    found = started(*TRAIN, *words, f"runs={tmp_path}", "logger=none", "threads=1")
    assert found["images_seen"] == 12
