"""A method in a package of its own, as its authors meet it and those who install it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskbench.evaluate import evaluate
from maskbench.predict import predict
from maskbench.runtime import verb
from maskbench.runtime.run_folder import read_json
from maskbench.train import train
from trained import TINY, call

SEARCHED = "hydra.searchpath=[pkg://paper.conf]"
TRUSTED = {"MASKBENCH_TRUSTED": "paper"}  # of what run folders name
SHORT = (*TINY[1:], "trainer.max_epochs=1", "logger=none", "speed.enabled=false")

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_it_is_trained_judged_and_predicts_as_ours_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TRUSTED.items():
        monkeypatch.setenv(name, value)
    metrics = call(train, SEARCHED, "method=small/tiny_paper", *SHORT, f"runs={tmp_path}")
    run = Path(metrics["run"])
    assert run.name.startswith("tiny_paper-small-seed0-")
    assert (metrics["method"], metrics["paradigm"]) == ("tiny_paper-small", "bottom-up")
    assert read_json(run / "fairness.json")["method"]["fields"]["method._target_"] == "paper.method.Cores"
    again = call(evaluate, f"run={run}", "predict=true")
    assert again["segm"]["AP"] == metrics["segm"]["AP"]
    assert call(predict, f"run={run}", f"images={run}/thumbnails", f"out={tmp_path}/out")["images"] == 4


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed in, from its wheel."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=root / "tests" / "paper", check=True, timeout=120, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def maskbench(installed: Path, tmp_path: Path) -> Command:
    """A verb with the package installed, in a folder where there is nothing of it."""

    def command(verb: str, *words: str, path: Path = installed) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", f"maskbench.{verb}", *words]
        environment = os.environ | TRUSTED | {"PYTHONPATH": str(path)}
        return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)

    return command


def last_line(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_sweep_of_it_beside_one_of_ours_and_what_is_asked_of_it_later(maskbench: Command, tmp_path: Path) -> None:
    found = last_line(maskbench("train", "-m", SEARCHED, "method=small/tiny_paper,small/semantic", *SHORT))
    study = Path(found["study"])
    assert [name.partition("-seed")[0] for name in found["done"]] == ["tiny_paper-small", "semantic-small"]
    run, ours = (study / name for name in found["done"])
    keys = [read_json(folder / "fairness.json") for folder in (run, ours)]
    for key in ("footing", "operating_point", "environment"):
        assert keys[0][key] == keys[1][key]

    judged = last_line(maskbench("evaluate", f"run={run}", "predict=true"))
    assert judged["segm"]["AP"] == read_json(run / "metrics.json")["segm"]["AP"]
    assert set(last_line(maskbench("benchmark", f"study={study}", "images=1"))["runs"]) == {run.name, ours.name}
    assert last_line(maskbench("predict", f"run={run}", f"images={run}/thumbnails", "out=out"))["images"] == 4
    # its class is needed where its network runs, and not where numbers are read
    last_line(maskbench("report", f"study={study}", path=tmp_path))
    rows = json.loads((study / "leaderboard.json").read_text())
    assert "tiny_paper-small" in json.dumps(rows)
    refused = maskbench("predict", f"run={run}", f"images={run}/thumbnails", "out=out", path=tmp_path)
    assert refused.returncode == 1
    assert "paper.method.Cores: not found (No module named 'paper')" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_two_devices_train_it(maskbench: Command, tmp_path: Path) -> None:
    devices = ("trainer.devices=2", "trainer.strategy=ddp", "data.root.empty=0.9", "data.batch=2")
    found = last_line(maskbench("train", SEARCHED, "method=small/tiny_paper", *SHORT, *devices))
    assert found["images_seen"] == 12


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([SEARCHED, "method=small/tiny_papre"], "there is no method=small/tiny_papre; did you mean small/tiny_paper"),
        (
            ["hydra.searchpath=[pkg://nobody.conf]", "method=tiny_paper"],
            "pkg://nobody.conf: .* no package nobody.conf.",
        ),
        (["--config-dir=/nowhere", "method=tiny_paper"], "/nowhere: there is no such folder of configs"),
    ],
)
def test_what_is_not_there_is_told(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train", *words])
    with pytest.raises(SystemExit) as stopped:
        verb.run("train", lambda cfg: {})
    assert stopped.value.code == 1
    assert re.match(told, " ".join(capsys.readouterr().err.split()))


def test_help_lists_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--help", SEARCHED])
    verb.run("train", lambda cfg: {})
    assert re.search(r"^  method=.*\|solov2\|.*\|small/tiny_paper\|tiny_paper$", capsys.readouterr().out, re.MULTILINE)


BROKEN = """
from dataclasses import replace
from paper.method import Cores

class WithoutCores(Cores):
    def loss(self, batch):
        losses = super().loss(batch)
        return losses if any(map(len, batch.targets)) else {"semantic": losses["semantic"]}

class Loud(Cores):
    def instances(self, raw, frames):
        return [replace(found, scores=found.scores + 1) for found in super().instances(raw, frames)]

class InNetworkPixels(Cores):
    def instances(self, raw, frames):
        return super().instances(raw, [replace(frame, photo=frame.resized) for frame in frames])
"""


@pytest.mark.slow
def test_its_own_tests_pass_but_for_methods_that_break_the_contract(root: Path, tmp_path: Path) -> None:
    """As its authors run them: in a checkout of theirs, by a plain pytest."""
    theirs = shutil.copytree(root / "tests" / "paper", tmp_path / "theirs")
    (theirs / "paper/broken.py").write_text(BROKEN)
    config = (theirs / "paper/conf/method/tiny_paper.yaml").read_text().replace("semantic_fpn", "semantic_fpn_thin")
    for name in ("WithoutCores", "Loud", "InNetworkPixels"):
        text = config.replace("paper.method.Cores", f"paper.broken.{name}")
        (theirs / f"paper/conf/method/{name}.yaml").write_text(text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    environment = os.environ | {"PYTHONPATH": str(theirs), "COLUMNS": "1000"}
    ended = subprocess.run(command, cwd=theirs, env=environment, capture_output=True, text=True, timeout=900)
    told = dict(re.findall(r"^FAILED .*::(\w+\[.+?\]) - AssertionError: (.*)", ended.stdout, re.MULTILINE))
    assert len(told) == len(re.findall("^FAILED", ended.stdout, re.MULTILINE)), ended.stdout
    assert not [test for test in told if "tiny_paper" in test], ended.stdout
    pixels = "test_instances_are_in_photo_pixels_and_ranked"
    gradient = "test_every_trainable_weight_gets_a_gradient_also_without_objects[WithoutCores-without_objects]"
    assert re.match(
        r"2 of \d+ weights get no gradient from photos without objects, .*: core.weight", told.pop(gradient)
    )
    assert told.pop(f"{pixels}[Loud]").startswith("scores lie in [0, 1], found [1.")
    assert told.pop(f"{pixels}[InNetworkPixels]").startswith("masks of (128, 128) pixels for a photo of (256, 256)")
    assert all("[InNetworkPixels]" in test for test in told)
