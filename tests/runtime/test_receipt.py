from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskbench.benchmark import benchmark
from maskbench.report import report
from maskbench.runtime.receipt import Receipt, read_by_report, read_by_stopwatch
from maskbench.sweep.status import Status
from trained import call, run

__all__ = ["run"]


@pytest.fixture
def writer(run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a finished run of a method in a study."""
    return lambda method: shutil.copytree(run, tmp_path / "study" / f"{method}-seed0-00000000")


def test_it_holds_while_files_and_settings_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "a"
    made = tmp_path / "made"
    for one in (file, made):
        one.write_text("one")

    def receipt(**settings: Any) -> Receipt:
        return Receipt(tmp_path / "receipt.json", [file], [made], settings)

    assert not receipt().holds
    receipt().write()
    assert receipt().holds
    assert not receipt(images=3).holds
    file.write_text("two!")
    assert not receipt().holds
    receipt().write()
    os.utime(file, (1, 1))
    assert not receipt().holds
    receipt().write()
    made.unlink()
    assert not receipt().holds
    made.touch()
    for damaged in ("{", "[" * 100_000):
        (tmp_path / "receipt.json").write_text(damaged)
        assert not receipt().holds


def test_what_a_step_writes_itself_is_not_what_it_reads(writer: Callable[[str], Path]) -> None:
    folder = writer("solov2-small")
    before = read_by_report(folder.parent)
    assert folder / "metrics.json" in before
    for own in ("report/index.html", "plots/a.svg", "logs/a.log", "wandb/a", "leaderboard.json", ".timed.json"):
        (folder.parent / own).parent.mkdir(exist_ok=True)
        (folder.parent / own).touch()
    assert read_by_report(folder.parent) == before
    timed = read_by_stopwatch(folder.parent)
    assert timed[0] == folder / "config.yaml"
    assert folder / "checkpoints" / "last.ckpt" in timed
    (folder / "speed.json").write_text("{}")
    assert read_by_stopwatch(folder.parent) == timed
    (folder / "status.json").unlink()
    assert read_by_stopwatch(folder.parent) == []


def test_a_report_is_made_anew_when_something_has_changed(
    writer: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = writer("solov2-small")
    words = (f"study={folder.parent}", "again=false", "logger=none")
    page = folder.parent / "report" / "index.html"
    whole = call(report, *words)
    first = page.stat().st_mtime_ns
    assert call(report, *words)["groups"] == whole["groups"]
    assert page.stat().st_mtime_ns == first
    assert "is made of all that there is; again=true makes it anew" in " ".join(capsys.readouterr().err.split())
    call(report, f"study={folder.parent}", "logger=none")
    assert page.stat().st_mtime_ns > first
    second = page.stat().st_mtime_ns
    writer("mask_rcnn-small")
    call(report, *words)
    assert page.stat().st_mtime_ns > second


def test_a_report_with_a_trial_to_wait_for_is_made_anew(writer: Callable[[str], Path]) -> None:
    folder = writer("solov2-small")
    Status().write(writer("mask_rcnn-small"))
    words = (f"study={folder.parent}", "again=false", "logger=none")
    call(report, *words)
    first = (folder.parent / "report" / "index.html").stat().st_mtime_ns
    call(report, *words)
    assert (folder.parent / "report" / "index.html").stat().st_mtime_ns > first


def test_a_study_is_timed_again_when_something_has_changed(
    writer: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = writer("solov2-small")
    words = (f"study={folder.parent}", "images=1", "again=false", "device=cpu")
    call(benchmark, *words)
    first = (folder / "speed.json").stat().st_mtime_ns
    assert call(benchmark, *words) == {"runs": {}}
    assert (folder / "speed.json").stat().st_mtime_ns == first
    assert "timed together already" in " ".join(capsys.readouterr().err.split())
    call(benchmark, f"study={folder.parent}", "images=2", "again=false", "device=cpu")
    assert (folder / "speed.json").stat().st_mtime_ns > first
