"""Two studies held against each other: what moved, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from maskbench.evaluation.matches import Matches
from maskbench.study.board import Board
from maskbench.study.uncertainty import assess

Verdict = Literal["higher", "lower", "within noise", "not tested"]


@dataclass(frozen=True)
class Move:
    """How a row of the table moved from one study to the other.

    Args:
        label: the row.
        before, now: its AP.
        low, high: 95 % interval of the difference; None where it was not tested.
        verdict: whether AP moved by more than chance (5 %, each row by itself); not tested where matches are missing
            or of other images.
        speed: FPS now by FPS before; None where it was not timed, or elsewhere.
    """

    label: str
    before: float
    now: float
    low: float | None
    high: float | None
    verdict: Verdict
    speed: float | None


@dataclass(frozen=True)
class Comparison:
    """All rows that both studies have, and those that one has alone."""

    moves: list[Move]
    gone: list[str]
    new: list[str]


def compare(now: Board, before: Board) -> Comparison:
    """The largest footing of one study with that of the other, row by row."""
    rows, earlier = ({row["label"]: row for _, row in _methods(board).iterrows()} for board in (now, before))
    both = [label for label in rows if label in earlier]
    return Comparison(
        moves=[_move(label, rows[label], earlier[label], now, before) for label in both],
        gone=[label for label in earlier if label not in rows],
        new=[label for label in rows if label not in earlier],
    )


def as_markdown(found: Comparison, now: Path, before: Path) -> str:
    """The comparison as people read it."""
    lines = [f"# {now.name} against {before.name}", ""]
    lines += ["| method | AP before | AP now | difference, 95 % | verdict | FPS now / before |"]
    lines += ["| :-- | --: | --: | --: | :-- | --: |"]
    for move in found.moves:
        bounds = "–" if move.low is None or move.high is None else f"{100 * move.low:+.1f} to {100 * move.high:+.1f}"
        speed = "–" if move.speed is None else f"{move.speed:.2f}"
        lines.append(
            f"| {move.label} | {100 * move.before:.1f} | {100 * move.now:.1f} | {bounds} | {move.verdict} | {speed} |"
        )
    for names, what in ((found.gone, "Only before"), (found.new, "Only now")):
        lines += ["", f"{what}: {', '.join(names)}."] if names else []
    return "\n".join([*lines, ""])


def _methods(board: Board) -> pd.DataFrame:
    return board.groups[0].methods if board.groups else pd.DataFrame()


def _move(label: str, row: pd.Series, earlier: pd.Series, now: Board, before: Board) -> Move:
    matches = _matches(label, now), _matches(label, before)
    low = high = None
    verdict: Verdict = "not tested"
    if all(matches) and len({own.images for side in matches for own in side}) == 1:
        found = assess({"now": matches[0], "before": matches[1]})
        pair = found.pairs[0] if found else None
        if pair:
            low, high = (pair.low, pair.high) if pair.first == "now" else (-pair.high, -pair.low)
            verdict = ("higher" if pair.first == "now" else "lower") if pair.apart else "within noise"
    here = now.groups[0].timing == before.groups[0].timing
    timed = here and not row["timed_elsewhere"] and not earlier["timed_elsewhere"]
    speed = row["FPS"] / earlier["FPS"] if timed and row["FPS"] > 0 and earlier["FPS"] > 0 else None
    return Move(label, float(earlier["AP"]), float(row["AP"]), low, high, verdict, speed)


def _matches(label: str, board: Board) -> Sequence[Matches]:
    """Of all runs of a row, or none where one of them has not kept its own."""
    named = {run.name: run for run in board.runs}
    trials = board.groups[0].trials
    found = [named[name].matches for name in trials.loc[trials["label"] == label, "run"]]
    kept = [matches for matches in found if matches]
    return kept if len(kept) == len(found) else []
