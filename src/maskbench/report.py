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
    from maskbench.study.dashboard import log_study
    from maskbench.study.report import write_report

    study = Path(cfg.study)
    page = write_report(study)
    board = read_json(study / "leaderboard.json")
    for group in board["groups"]:
        rows = [
            [row["label"], *(_number(row, name) for name in ("AP", "AP50", "FPS", "n"))] for row in group["methods"]
        ]
        show(f"{study.name}, footing {group['footing']}", ["method", "AP", "AP50", "FPS", "seeds"], rows)
    for run in board["unfinished"]:
        say(f"{run['run']}: {run['state']}, {run['reason']}")
    logged = log_study(study, mode=cfg.logger.mode, project=cfg.logger.project) if cfg.logger else None
    say(f"{page} holds the table, the plots and the photos side by side")
    return {**board, "study": str(study), "report": str(page), "wandb": logged}


def _number(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if name.startswith("AP"):
        return percent(value)
    return "–" if value is None else f"{value:.1f}" if name == "FPS" else str(int(value))


def main() -> None:
    verb.run("report", report)


if __name__ == "__main__":
    main()
