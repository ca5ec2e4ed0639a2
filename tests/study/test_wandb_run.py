from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import wandb

from maskbench.study.board import Board
from maskbench.study.wandb_run import log_study


def test_the_study_is_logged_offline_and_at_once(study: Path) -> None:
    began = time.monotonic()
    folder = log_study(Board.read(study))
    assert time.monotonic() - began < 15
    assert folder is not None
    assert Path(folder).parent == study / "wandb"
    assert list(Path(folder).glob("*.wandb"))
    tables = {path.name.rsplit("_", 2)[0]: json.loads(path.read_text()) for path in Path(folder).rglob("*.table.json")}
    assert set(tables) == {"leaderboard", "methods", "ap_against_fps_table"}
    assert len(tables["leaderboard"]["data"]) == 6
    assert tables["ap_against_fps_table"]["columns"] == ["FPS", "AP", "method", "seed"]
    assert len(tables["ap_against_fps_table"]["data"]) == 5


def test_a_study_that_is_logged_again_is_one_run(study: Path) -> None:
    for _ in range(2):
        folder = log_study(Board.read(study))
    assert [str(path) for path in (study / "wandb").glob("offline-run-*")] == [folder]


def test_the_run_belongs_to_the_study(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    start = wandb.init

    def spy(**settings: object) -> wandb.Run:
        seen.update(settings)
        return start(**settings)  # type: ignore[arg-type]

    monkeypatch.setattr(wandb, "init", spy)
    assert log_study(Board.read(study), "disabled") is None
    assert (seen["group"], seen["job_type"], seen["mode"]) == ("shapes", "study", "disabled")
    assert seen["id"] == "shapes-leaderboard"
