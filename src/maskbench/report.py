"""One answer from the runs of a study: `python -m maskbench.report study=DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.runtime import verb
from maskbench.runtime.console import percent, say, show
from maskbench.runtime.run_folder import read_json


def report(cfg: DictConfig) -> dict[str, Any]:
    """Write leaderboard.{csv,md,json} and report/index.html into the study's folder, and its W&B run.

    Works at any moment: what is not finished is named.
    """
    from maskbench.study.board import Board, write_leaderboard
    from maskbench.study.dashboard import log_study
    from maskbench.study.report import write_report

    board = Board.read(Path(cfg.study))
    files = write_leaderboard(board)
    page = write_report(board)
    table = read_json(files["json"])
    for group in table["groups"]:
        show(f"{board.study.name}, footing {group['footing']}", HEADINGS, map(_line, group["methods"]))
    for run in table["unfinished"]:
        say(f"{run['run']}: {run['state']}, {run['reason']}")
    logged = log_study(board, mode=cfg.logger.mode, project=cfg.logger.project) if cfg.logger else None
    say(f"{page} holds {'the table, the plots and the photos side by side' if board.groups else 'what went wrong'}")
    return {**table, "study": str(board.study), "report": str(page), "wandb": logged}


HEADINGS = ("method", "AP", "95 %", "letters", "FPS", "seeds")


def _line(row: dict[str, Any]) -> list[str]:
    """What the screen shows of a row of the leaderboard."""
    within = "–" if row["AP_low"] is None else f"{percent(row['AP_low'])} to {percent(row['AP_high'])}"
    speed = "–" if row["FPS"] is None else f"{row['FPS']:.1f}"
    return [row["label"], percent(row["AP"]), within, row["letters"] or "–", speed, str(row["n"])]


def main() -> None:
    verb.run("report", report)


if __name__ == "__main__":
    main()
