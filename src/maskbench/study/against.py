"""Two studies held against each other: what moved, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from maskbench.evaluation.matches import Matches
from maskbench.study.board import Board, matches_of
from maskbench.study.leaderboard import ROW, Group
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
            or the data are others.
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
    """The largest footings of two studies, row by row.

    Args:
        moves: rows that both have.
        gone, new: rows that one has alone.
        apart: settings that the footings differ in, before and now; what moved may be theirs.
    """

    moves: list[Move]
    gone: list[str]
    new: list[str]
    apart: dict[str, tuple[Any, Any]]


def compare(now: Board, before: Board) -> Comparison:
    """Hold the largest footing of one study against that of the other.

    Rows are the same if method, its settings and the operating point are; or the method, where each has one row of it.
    """
    rows, earlier = (board.groups[0].methods if board.groups else pd.DataFrame() for board in (now, before))
    pairs = _pairs(rows, earlier)
    apart = _apart(now, before) if pairs else {}
    moves = [_move(rows.loc[here], earlier.loc[there], now, before, apart) for here, there in pairs]
    known = {here for here, _ in pairs}, {there for _, there in pairs}
    return Comparison(
        moves=moves,
        gone=[row["label"] for place, row in earlier.iterrows() if place not in known[1]],
        new=[row["label"] for place, row in rows.iterrows() if place not in known[0]],
        apart=apart,
    )


def as_markdown(found: Comparison, now: Path, before: Path) -> str:
    """The comparison as people read it."""
    lines = [f"# {now.name} against {before.name}", ""]
    if found.apart:
        lines += ["Other settings are others too, and what moved may be theirs:", ""]
        lines += [f"- `{name}`: {was} before, {is_} now" for name, (was, is_) in found.apart.items()] + [""]
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


def _pairs(rows: pd.DataFrame, earlier: pd.DataFrame) -> list[tuple[Any, Any]]:
    """Places of the rows that are the same in both tables."""
    if rows.empty or earlier.empty:
        return []
    found = []
    for place, row in rows.iterrows():
        exact = earlier.index[(earlier[ROW] == row[ROW]).all(axis=1)]
        alike = earlier.index[earlier["method"] == row["method"]]
        alone = len(alike) == 1 and (rows["method"] == row["method"]).sum() == 1
        if len(exact) or alone:
            found.append((place, exact[0] if len(exact) else alike[0]))
    return found


def _apart(now: Board, before: Board) -> dict[str, tuple[Any, Any]]:
    here, there = (_footing(board) for board in (now, before))
    names = sorted(here.keys() | there.keys())
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def _footing(board: Board) -> dict[str, Any]:
    """The fields of the largest footing."""
    keys = (run.keys.get("footing") for run in board.runs)
    return next((key.fields for key in keys if key and key.key == board.groups[0].footing), {})


def _move(row: pd.Series, earlier: pd.Series, now: Board, before: Board, apart: Mapping[str, Any]) -> Move:
    groups = now.groups[0], before.groups[0]
    low = high = None
    verdict: Verdict = "not tested"
    # ids count from 1 in many data sets: other photos under the same ids are no pairs
    if "data.fingerprint" not in apart and (moved := _moved(row, earlier, now, before)):
        low, high, verdict = moved
    timed = groups[0].timing == groups[1].timing and not row["timed_elsewhere"] and not earlier["timed_elsewhere"]
    speed = row["FPS"] / earlier["FPS"] if timed and row["FPS"] > 0 and earlier["FPS"] > 0 else None
    return Move(str(row["label"]), float(earlier["AP"]), float(row["AP"]), low, high, verdict, speed)


def _moved(row: pd.Series, earlier: pd.Series, now: Board, before: Board) -> tuple[float, float, Verdict] | None:
    """Interval and verdict of a difference; None where matches are missing or of other images."""
    sides = {"now": _matches(row, now), "before": _matches(earlier, before)}
    if not all(sides.values()) or len({own.images for side in sides.values() for own in side}) > 1:
        return None
    found = assess(sides)
    if found is None:
        return None
    (pair,) = found.pairs
    low, high = (pair.low, pair.high) if pair.first == "now" else (-pair.high, -pair.low)
    return low, high, ("higher" if pair.first == "now" else "lower") if pair.apart else "within noise"


def _matches(row: pd.Series, board: Board) -> list[Matches]:
    group: Group = board.groups[0]
    return matches_of(str(row["label"]), group, {run.name: run for run in board.runs})
