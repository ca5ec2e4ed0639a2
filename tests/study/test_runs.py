from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskbench.errors import RunError
from maskbench.study.runs import read_runs
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Trial, announce, announced


def test_runs_are_read_in_whatever_state_they_are(study: Path) -> None:
    runs = read_runs(study)
    assert [(run.method, run.seed, run.state) for run in runs] == [
        ("discriminative-small", 0, "done"),
        ("discriminative-small", 1, "done"),
        ("mask_rcnn-small", 0, "done"),
        ("mask_rcnn-small", 1, "failed"),
        ("solov2-small", 0, "done"),
        ("solov2-small", 1, "done"),
    ]
    lost = runs[3]
    assert lost.reason == "OutOfMemoryError: tried to allocate 2 GiB"
    assert lost.log.is_file()
    assert len(lost.history) == 2
    assert lost.metrics == {}
    found = runs[0]
    assert found.config.trainer.max_epochs == 5
    assert found.keys["footing"].fields["backbone.name"] == "resnet18"
    assert list(found.photos) == [1007, 1010, 1013, 1019]
    assert found.photo(1007) == found.folder / "thumbnails" / "1007.jpg"
    assert found.photo(1) is None


def test_a_running_trial_and_one_whose_process_is_gone(writer: Any) -> None:
    folder = writer("solov2-small")
    Status().write(folder)
    assert read_runs(folder.parent)[0].state == "running"
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    Status(pid=gone.pid).write(folder)
    run = read_runs(folder.parent)[0]
    assert (run.state, run.reason) == ("failed", "its process is gone")


@pytest.mark.parametrize("gone", ["status.json", "metrics.json"])
def test_a_run_is_done_when_it_says_so_and_has_its_metrics(writer: Any, gone: str) -> None:
    folder = writer("solov2-small")
    assert Status.finished(folder)
    (folder / gone).unlink()
    assert not Status.finished(folder)
    run = read_runs(folder.parent)[0]
    assert (run.state, run.metrics) == ("missing", {})
    assert gone in run.reason


def test_a_run_needs_little_to_be_listed(tmp_path: Path) -> None:
    folder = tmp_path / "solov2-seed3-0123abcd"
    folder.mkdir()
    (folder / "history.csv").touch()
    (tmp_path / "logs").mkdir()
    (run,) = read_runs(tmp_path)
    assert (run.method, run.seed, run.hash, run.state) == ("solov2", 3, "0123abcd", "missing")
    assert run.config == {}
    assert run.history.empty
    assert run.photos == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [("metrics.json", "{"), ("speed.json", "[1]"), ("fairness.json", "nothing"), ("history.csv", 'a,b\n"1\n2,3,4\n')],
)
def test_an_unreadable_file_is_named(writer: Any, name: str, content: str) -> None:
    folder = writer("solov2-small")
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=f"{folder.name}/{name}: .*"):
        read_runs(folder.parent)


def test_a_broken_config_is_named_when_it_is_needed(writer: Any) -> None:
    folder = writer("solov2-small")
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match=r"config\.yaml: not readable"):
        _ = read_runs(folder.parent)[0].config


def test_a_trial_that_a_sweep_has_not_begun_is_missing(writer: Any) -> None:
    folder = writer("solov2-small")
    names = [folder.name, "solov2-small-seed7-00000000"]
    announce(Trial(name, [], folder.parent / name) for name in names)
    announce([Trial("x", [], folder.parent / "htc-small-seed0-00000000")])
    assert announced(folder.parent) == [*sorted(names), "htc-small-seed0-00000000"]
    found = {(run.method, run.seed): run.state for run in read_runs(folder.parent)}
    assert found == {("solov2-small", 0): "done", ("solov2-small", 7): "missing", ("htc-small", 0): "missing"}


def test_no_study_and_no_run_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        read_runs(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no run in it; .* found nothing"):
        read_runs(tmp_path)
    (tmp_path / "notes.txt").write_text(json.dumps({}))
    with pytest.raises(RunError, match=r"found notes\.txt"):
        read_runs(tmp_path)
