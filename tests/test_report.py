from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf

from logged import logged
from maskbench.errors import ConfigError, DashboardError, RunError
from maskbench.report import report
from shown import shown
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


def test_wandb_is_told_nothing_of_trials_that_it_was_told_nothing_of(run: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(run, study / run.name)
    config = study / run.name / "config.yaml"
    OmegaConf.save({**OmegaConf.load(config), "logger": {}}, config)
    assert call(report, f"study={study}")["wandb"] is None
    assert not (study / "wandb").exists()
    assert not (study / "report" / "dashboard.json").exists()
    with pytest.raises(ConfigError, match=r"wandb=push shows what runs have logged, and those of .* have not"):
        call(report, f"study={study}", "wandb=push")


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


def test_all_that_the_dashboards_show_is_logged(run: Path, tmp_path: Path) -> None:
    study = shutil.copytree(run, tmp_path / "trained" / run.name).parent
    told = call(report, f"study={study}")
    (folder,) = (run.parent / "wandb").glob(f"offline-run-*-trained-{run.name}")
    trial, board = logged(folder), logged(Path(told["wandb"]))
    found = shown(json.loads(Path(told["dashboard"]).read_text()))

    assert {("images", "tune/AP"), ("hours", "tune/AP"), ("tune/photos",)} < found.together
    assert {"summary:speed/fps", "summary:test/segm/AP", "summary:test/segm/APs"} < found.over_runs
    assert found.tables == {"methods", "ap_against_fps_table"}
    rows = [{name.partition(".")[0] for name in row} for row in trial.history]  # media and tables are told in parts
    assert [names for names in found.together if not any(row.issuperset(names) for row in rows)] == []
    known = {f"summary:{name}" for name in trial.summary} | {f"config:{name}.value" for name in trial.config}
    assert found.over_runs - known == set()
    assert found.tables - {name.partition(".")[0] for name in board.summary} == set()


def test_a_push_without_a_login_says_what_to_do_and_leaves_the_report(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "Api", unknown)
    study = shutil.copytree(run, tmp_path / "trained" / run.name).parent
    with pytest.raises(DashboardError, match=r"No API key configured.* needs a network and a login \(`wandb login`"):
        call(report, f"study={study}", "wandb=push")
    assert {path.name for path in (study / "report").iterdir()} == {"index.html", "dashboard.json"}
    assert list((study / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [(["wandb=sent"], "wandb=sent: expected push"), (["wandb=push", "logger=none"], "leave one out")],
)
def test_what_can_not_be_pushed_is_told_before_anything_is_written(
    tmp_path: Path, settings: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        call(report, f"study={tmp_path / 'nowhere'}", *settings)
