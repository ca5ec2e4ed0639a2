from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from maskbench.errors import RunError
from maskbench.report import report
from trained import call, run

__all__ = ["run"]


def test_a_study_becomes_a_page_a_table_and_a_wandb_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    shutil.copytree(run, study / run.name)
    found = call(report, f"study={study}")
    assert Path(found["report"]).read_text().startswith("<!doctype html>")
    assert (study / "leaderboard.md").exists()
    assert Path(found["wandb"]).is_dir()
    assert Path(found["wandb"]).name.endswith("-study-leaderboard")
    assert [row["label"] for row in found["groups"][0]["methods"]] == ["solov2-small"]
    assert "solov2-small" in capsys.readouterr().err
    assert call(report, f"study={study}", "logger=none")["wandb"] is None


def test_a_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in it"):
        call(report, f"study={tmp_path}")


def test_a_study_is_held_against_itself_and_nothing_moved(run: Path, tmp_path: Path) -> None:
    study, before = tmp_path / "study", tmp_path / "before"
    for folder in (study, before):
        shutil.copytree(run, folder / run.name)
    found = call(report, f"study={study}", f"against={before}", "logger=none")
    (move,) = found["against"]["moves"]
    assert (move["verdict"], move["low"], move["high"]) == ("within noise", 0, 0)
    assert "| solov2-small |" in (study / "against-before.md").read_text()


def test_a_study_that_is_not_there_is_told_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    study = shutil.copytree(run, tmp_path / "now" / run.name).parent
    with pytest.raises(RunError, match="nowhere: no such folder"):
        call(report, f"study={study}", f"against={tmp_path / 'nowhere'}", "logger=none")
    assert not (study / "report").exists()
