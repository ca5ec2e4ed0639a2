from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import chaos
from maskbench.errors import ConfigError
from maskbench.sweep.engine import run
from maskbench.sweep.ray import Ray
from maskbench.sweep.trial import Trial
from trained import TINY

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")]

LOCAL = "from maskbench.sweep.ray import Ray\nengine = Ray(1, cpus=2, silence=5.0)"


def pids(*words: str) -> list[str]:
    return subprocess.run(["pgrep", *words], capture_output=True, text=True).stdout.split()


def test_a_sweep_survives_all_that_can_go_wrong_and_the_loss_of_a_worker(tmp_path: Path) -> None:

    def lose_a_worker() -> None:
        chaos.wait_until(lambda: bool(chaos.working(tmp_path, chaos.SLOW)))
        trial = chaos.working(tmp_path, chaos.SLOW)[0]
        worker = next(worker for worker in pids("-f", "ray::run_alone") if trial in pids("-P", worker))
        os.kill(int(worker), signal.SIGKILL)

    text = chaos.survives(tmp_path, LOCAL, meanwhile=lose_a_worker)
    assert "no sign of life for" in text
    assert text.count("as it was done before") >= 2
    assert sum(noted[:2] == ["begin", chaos.SLOW] for noted in chaos.notes(tmp_path)) == 2
    chaos.wait_until(lambda: not pids("-f", "ray::run_alone"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_asks_for_an_end_lets_trials_write_down_what_they_have(tmp_path: Path, number: signal.Signals) -> None:
    chaos.is_ended(tmp_path, LOCAL, number)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster that was started in another folder."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (tmp_path / "cluster").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    with (tmp_path / "cluster.log").open("w+") as log:
        head = subprocess.Popen(
            [*start, "--include-dashboard=false", "--disable-usage-stats"],
            cwd=tmp_path / "cluster",
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            chaos.wait_until(lambda: "Ray runtime started" in Path(log.name).read_text())
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait()


def test_a_cluster_that_was_started_in_another_folder_runs_trials_of_this_one(tmp_path: Path, cluster: str) -> None:
    (tmp_path / "here").mkdir()
    settings = ["hydra/launcher=ray", f"hydra.launcher.address={cluster}", "runs=relative", "logger=none"]
    command = [sys.executable, "-m", "maskbench.train", "-m", *TINY, "trainer.max_epochs=1", *settings]
    ended = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    (done,) = json.loads(ended.stdout.splitlines()[-1])["done"]
    assert (tmp_path / "here" / "relative" / "try" / done / "metrics.json").is_file()
    assert (tmp_path / "here" / "relative" / "try" / "logs" / f"{done}.log").is_file()


GPUS = """
import os, sys, time
with open(sys.argv[1] + "/notes", "a") as file: file.write("+" + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
time.sleep(2)
with open(sys.argv[1] + "/notes", "a") as file: file.write("-" + os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
open(sys.argv[2] + "/metrics.json", "w").write("{}")
open(sys.argv[2] + "/status.json", "w").write('{"state": "done"}')
"""


def on_gpus(study: Path, share: float, gpus: int) -> list[str]:
    """Beginnings (+) and ends (−) of four trials, each with the GPU that it saw."""
    trials = []
    for name in "abcd":
        (study / name).mkdir()
        command = [sys.executable, "-S", "-c", GPUS, str(study), str(study / name)]
        trials.append(Trial(name, command, study / name, gpus=share))
    outcomes = run(trials, Ray(1, cpus=4, gpus=gpus), console=Console(file=io.StringIO()))
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    return (study / "notes").read_text().split()


def most_at_once(noted: list[str]) -> Iterator[int]:
    for gpu in sorted({note[1:] for note in noted}):
        at_once = [sum(1 if note[0] == "+" else -1 for note in noted[: end + 1] if note[1:] == gpu) for end in range(8)]
        yield max(at_once)


def test_each_trial_has_a_gpu_of_its_own_or_shares_it_when_it_takes_a_part(tmp_path: Path) -> None:
    for name in ("whole", "half"):
        (tmp_path / name).mkdir()
    whole = on_gpus(tmp_path / "whole", 1, gpus=2)
    assert {note[1:] for note in whole} == {"0", "1"}
    assert list(most_at_once(whole)) == [1, 1]
    half = on_gpus(tmp_path / "half", 0.5, gpus=1)
    assert {note[1:] for note in half} == {"0"}
    assert list(most_at_once(half)) == [2]


def test_a_gpu_that_the_cluster_lacks_is_told(tmp_path: Path) -> None:
    trials = [Trial("a", ["true"], tmp_path / "a", gpus=1)]
    with pytest.raises(ConfigError, match="asks for a GPU, but Ray's cluster has none"):
        run(trials, Ray(1, cpus=1, gpus=0, need_gpus=True), console=Console(file=io.StringIO()))
