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
        rows = [[row["label"], *(_text(row, name) for name in NUMBERS)] for row in group["methods"]]
        show(f"{board.study.name}, footing {group['footing']}", ["method", *NUMBERS.values()], rows)
    for run in table["unfinished"]:
        say(f"{run['run']}: {run['state']}, {run['reason']}")
    logged = log_study(board, mode=cfg.logger.mode, project=cfg.logger.project) if cfg.logger else None
    say(f"{page} holds {'the table, the plots and the photos side by side' if board.groups else 'what went wrong'}")
    return {**table, "study": str(board.study), "report": str(page), "wandb": logged}


NUMBERS = {"AP": "AP", "AP_low": "95 % from", "AP_high": "to", "letters": "letters", "AP50": "AP50", "FPS": "FPS"}
NUMBERS |= {"n": "seeds"}
"""What the screen shows of a row, with the headings."""


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if name.startswith("AP"):
        return percent(value)
    return "–" if value is None else f"{value:.1f}" if name == "FPS" else str(value)


def main() -> None:
    verb.run("report", report)


if __name__ == "__main__":
    main()
