"""One answer from the runs of a study: `python -m maskbench.report study=DIR [against=DIR]`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import replace_text
from maskbench.errors import ConfigError
from maskbench.runtime import verb
from maskbench.runtime.console import percent, say, show
from maskbench.runtime.receipt import Receipt, read_by_report
from maskbench.runtime.run_folder import read_json
from maskbench.runtime.values import require

if TYPE_CHECKING:
    from maskbench.study.board import Board


def report(cfg: DictConfig) -> dict[str, Any]:
    """Write leaderboard.{csv,md,json} and report/index.html into the study's folder, its W&B run and its dashboards.

    Works at any moment: what is not finished is named. With `against` it is held against an earlier study as well;
    `guests` are other systems' predictions on the same test split, which stay in the table from then on. Of trials that
    W&B was told nothing of (`logger=none`) it is told nothing here.
    """
    require(cfg, {"study": str, "against": str | None, "again": bool})
    _require_known_push(cfg)
    study = Path(cfg.study)
    receipt = _receipt(cfg, study)
    if receipt and receipt.holds:
        page = study / "report" / "index.html"
        say(f"{page} is made of all that there is; again=true makes it anew")
        return {**read_json(study / "leaderboard.json"), "study": str(study), "report": str(page)}
    from maskbench.study.board import Board, write_leaderboard
    from maskbench.study.report import write_report
    from maskbench.study.runs import read_runs

    if cfg.wandb and not any(run.logged for run in read_runs(study)):
        raise ConfigError(f"wandb=push shows what runs have logged, and those of {study} have not (logger=none)")
    if cfg.guests:
        from maskbench.runtime.guests import invite

        invite(Path(cfg.study), _listed(cfg.guests))
    before = Board.read(Path(cfg.against), certain=False) if cfg.against else None
    board = Board.read(study)
    files = write_leaderboard(board)
    page = write_report(board)
    table = read_json(files["json"])
    for group in table["groups"]:
        show(f"{board.study.name}, footing {group['footing']}", HEADINGS, map(_line, group["methods"]))
    for run in table["unfinished"]:
        say(f"{run['run']}: {run['state']}, {run['reason']}")
    moved = _against(board, before) if before else {}
    say(f"{page} holds {'the table, the plots and the photos side by side' if board.groups else 'what went wrong'}")
    logged = cfg.logger and any(run.logged for run in board.runs)
    shown = _in_wandb(board, page.with_name("dashboard.json"), cfg) if logged else {"wandb": None}
    if receipt and not table["unfinished"]:  # who has a trial to wait for looks at the clock as well as at files
        receipt.write()
    return {**table, "study": str(board.study), "report": str(page), **shown, **moved}


def _receipt(cfg: DictConfig, study: Path) -> Receipt | None:
    """Of a report that is asked for in case that something has changed; None where it is to be made in any case."""
    if cfg.again or cfg.wandb or cfg.against or cfg.guests or not study.is_dir():
        return None
    settings = {"logger": OmegaConf.to_container(cfg.logger) if cfg.logger else None}
    makes = [study / "report" / "index.html", study / "leaderboard.json"]
    return Receipt(study / "report" / ".made_of.json", read_by_report(study), makes, settings)


def _require_known_push(cfg: DictConfig) -> None:
    """Raise where nothing can be pushed."""
    if cfg.wandb not in (None, "push"):
        raise ConfigError(f"wandb={cfg.wandb}: expected push, or nothing; how runs are logged says logger.mode")
    if cfg.wandb and not cfg.logger:
        raise ConfigError("wandb=push shows what runs have logged, and logger=none says they have not: leave one out")


def _in_wandb(board: Board, path: Path, cfg: DictConfig) -> dict[str, Any]:
    """Log the study's own run, write its dashboards and, if asked to, push them."""
    from maskbench.study.dashboard import make, push, write
    from maskbench.study.wandb_run import log_study

    place = {"project": cfg.logger.project, "entity": cfg.logger.get("entity")}
    dashboards = make(board, **place)
    write(dashboards, path)
    found: dict[str, Any] = {"wandb": log_study(board, mode=cfg.logger.mode, **place), "dashboard": str(path)}
    if cfg.wandb:
        found["pushed"] = push(dashboards, path)
        say(f"{found['pushed']['workspace']} and {found['pushed']['report']} show what W&B has of the runs")
        if cfg.logger.mode == "offline":
            say(f"wandb sync {board.study}/wandb/offline-run-* sends it those that were logged offline")
    return found


def _listed(guests: Any) -> list[Any]:
    found = OmegaConf.to_container(guests) if OmegaConf.is_config(guests) else guests
    return found if isinstance(found, list) else [found]


def _against(board: Board, before: Board) -> dict[str, Any]:
    """Hold the study against an earlier one; writes against-NAME.md."""
    from maskbench.study.against import as_markdown, compare

    found = compare(board, before)
    page = board.study / f"against-{before.study.resolve().name}.md"
    replace_text(page, as_markdown(found, board.study.resolve(), before.study.resolve()))
    rows = [
        [move.label, percent(move.before), percent(move.now), move.verdict, f"{move.speed:.2f}" if move.speed else "–"]
        for move in found.moves
    ]
    show(f"{board.study.name} against {before.study.name}", ["method", "before", "now", "AP is", "FPS ratio"], rows)
    say(f"{page} says it with intervals")
    return {"against": asdict(found)}


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
