"""The study's own W&B run: its leaderboard as a table, and AP against FPS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import wandb

from maskbench.study.board import Board
from maskbench.study.leaderboard import COLUMNS, Group
from maskbench.sweep.identity import wandb_id

Mode = Literal["offline", "online", "disabled"]

TEXTS = (
    "method",
    "paradigm",
    "seed",
    "state",
    "score_rule",
    "footing",
    "operating_point",
    "settings",
    "environment",
    "run",
)


def log_study(
    board: Board, mode: Mode = "offline", project: str = "maskbench", entity: str | None = None
) -> str | None:
    """Log the study as a run of job type `study` in the group of its trials: one run, however often it is logged.

    Args:
        board: the study.
        mode: offline writes files alone, without login or network; online sends them as well.
        project, entity: W&B's project and whose it is (None: one's own).

    Returns:
        The folder of an offline run, for `wandb sync` or `wandb leet`; None otherwise.
    """
    study = board.study
    name, own = study.resolve().name, run_id(board)
    if mode == "offline":
        # what was logged before is out of date, and waits to be sent all the same
        for earlier in (study / "wandb").glob(f"offline-run-*-{own}"):
            shutil.rmtree(earlier)
    run = wandb.init(
        project=project,
        entity=entity,
        group=group_of(board),
        job_type="study",
        name=f"{name}-leaderboard",
        id=own,
        resume=None if mode == "offline" else "allow",
        mode=mode,
        dir=str(study),
        config={"study": name, "footings": [found.footing for found in board.groups]},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
    )
    with run:
        trials = _table(board.table, [*TEXTS, *(column.name for column in COLUMNS)])
        run.log({"leaderboard": trials, **_charts(board)})
        run.summary.update(_summary(board))
    return str(Path(run.dir).parent) if mode == "offline" else None


def run_id(board: Board) -> str:
    """The id of the study's own run."""
    return wandb_id(board.study.resolve().name, "leaderboard")


def group_of(board: Board) -> str:
    """W&B's group of the trials: the study as they were told of it, whose folder may have been moved since."""
    named = (run.settings.get("study") for run in board.runs)
    return next((str(name) for name in named if name), board.study.resolve().name)


def suffix(board: Board, found: Group) -> str:
    """Tells the keys of footings apart where there are several."""
    return f"-{found.footing}" if len(board.groups) > 1 else ""


def timed(found: Group) -> pd.DataFrame:
    """The trials whose AP and FPS are known."""
    return found.trials.dropna(subset=["AP", "FPS"])


def _charts(board: Board) -> dict[str, Any]:
    """For each footing its methods, and AP against FPS."""
    charts: dict[str, Any] = {}
    for found in board.groups:
        names = [column.name for column in COLUMNS]
        columns = ["label", "paradigm", "n", *(name for column in names for name in (column, f"{column}_std"))]
        charts[f"methods{suffix(board, found)}"] = _table(found.methods, columns)
        points = timed(found)
        if len(points):
            rows = _table(points, ["FPS", "AP", "method", "seed"])
            chart = wandb.plot.scatter(rows, "FPS", "AP", title="mask AP against FPS")
            charts[f"ap_against_fps{suffix(board, found)}"] = chart
    return charts


def _summary(board: Board) -> dict[str, Any]:
    counts = board.table["state"].value_counts()
    best = {
        f"{found.footing}/{row['label']}/AP": float(row["AP"])
        for found in board.groups
        for _, row in found.methods.iterrows()
    }
    return {f"trials_{state}": int(count) for state, count in counts.items()} | best


def _table(table: pd.DataFrame, columns: list[str]) -> wandb.Table:
    """Plain values, None for what is not there."""
    return wandb.Table(dataframe=table[columns].astype(object).where(table[columns].notna(), None))
