"""A study as a whole: its runs, their tables with what can be said of them, and the files of the leaderboard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from maskbench.atomic import replace_text
from maskbench.evaluation.matches import Matches
from maskbench.study.labels import differences
from maskbench.study.leaderboard import (
    DEPLOYED,
    Group,
    bounds,
    group,
    letters,
    marks,
    remarks,
    spread,
    tabulate,
    unfinished,
    used,
)
from maskbench.study.runs import Run, read_runs
from maskbench.study.uncertainty import Uncertainty, assess

CERTAINTY = (
    "The 95 % interval of AP says where it would lie on other photos of this kind (with several seeds: from other "
    "seeds, too). Rows that share a letter can't be told apart (paired bootstrap, corrected for all pairs after Holm)."
)

SEMANTICS = (
    "mIoU and pixel accuracy are of the map of classes that bottom-up methods make before they tell objects apart "
    "(background is a class of it): how many are told apart they don't say."
)

DEPLOYMENT = (
    "AP pays for many overlapping, ranked guesses. At a method's deployment point, the score from which on F1 at an "
    "IoU of 0.5 is best on the tune split, nothing is ranked: each guess is right or wrong. |DiC| is by how many "
    "objects an image is miscounted, SBD (symmetric best Dice) how well the objects are drawn: means over images, all "
    "classes together. The numbers are of test."
)


@dataclass(frozen=True)
class Board:
    """What the runs of a study say together.

    Args:
        study: its folder.
        runs: all of them, whatever state they are in.
        table: a row a run.
        groups: the finished ones by footing, the largest first.
    """

    study: Path
    runs: list[Run]
    table: pd.DataFrame
    groups: list[Group]

    @classmethod
    def read(cls, study: Path, *, certain: bool = True) -> Board:
        """Read the runs of a study and, if it is to be certain, bootstrap what their matches allow.

        Raises:
            RunError: the folder has no run, or a file in it can't be read.
            DataError: the matches of a run can't be read.
        """
        runs = read_runs(study)
        table = tabulate(runs)
        named = {run.name: run for run in runs}
        groups = group(table)
        if certain:
            groups = [replace(found, uncertainty=_uncertainty(found, named)) for found in groups]
        return cls(study, runs, table, groups)


def _uncertainty(found: Group, runs: dict[str, Run]) -> Uncertainty | None:
    """Of the rows whose runs all have their matches.

    Guests have intervals, but no letters: on a footing that nobody knows they are in no comparison, and what they are
    worth moves none.
    """
    guests = set(found.methods.loc[found.methods["guest"], "label"])
    rows = {label: matches for label in found.methods["label"] if (matches := matches_of(label, found, runs))}
    own = assess({label: matches for label, matches in rows.items() if label not in guests})
    if own is None:
        return None
    alone = [assess({label: rows[label]}) for label in guests & set(rows)]
    return replace(
        own, intervals=own.intervals | {label: at for one in alone if one for label, at in one.intervals.items()}
    )


def matches_of(label: str, found: Group, runs: Mapping[str, Run]) -> list[Matches]:
    """Of all runs of a row, or none where one of them has not kept its own."""
    kept = [runs[name].matches for name in found.trials.loc[found.trials["label"] == label, "run"]]
    known = [matches for matches in kept if matches]
    return known if len(known) == len(kept) else []


def write_leaderboard(board: Board) -> dict[str, Path]:
    """leaderboard.csv (a row a trial), .json (trials and methods by footing) and .md (what people read)."""
    paths = {kind: board.study / f"leaderboard.{kind}" for kind in ("csv", "json", "md")}
    replace_text(paths["csv"], board.table.to_csv(index=False))
    replace_text(paths["json"], json.dumps(as_json(board), indent=2) + "\n")
    replace_text(paths["md"], as_markdown(board))
    return paths


def as_json(board: Board) -> dict[str, Any]:
    groups = [
        {
            "footing": found.footing,
            "timing": found.timing,
            "methods": [{**row, **_certainty(found, row)} for row in _records(found.methods)],
            "pairs": [asdict(pair) for pair in found.uncertainty.pairs] if found.uncertainty else [],
            "trials": _records(found.trials),
        }
        for found in board.groups
    ]
    return {"study": board.study.name, "groups": groups, "unfinished": _records(unfinished(board.table))}


def as_markdown(board: Board) -> str:
    parts = [f"# {board.study.name}", ""]
    apart = differences(run.keys["footing"] for run in board.runs if run.state == "done" and "footing" in run.keys)
    for found in board.groups:
        own = apart.get(found.footing, {})
        named = f" ({', '.join(f'{name} = {value}' for name, value in own.items())})" if own else ""
        parts += [f"Footing `{found.footing or 'unknown'}`{named}. AP × 100, on masks of the test split.", ""]
        parts += [*_markdown(_method_lines(found)), ""]
        if found.methods["mIoU"].notna().any():
            parts += [SEMANTICS, ""]
        if used(found, DEPLOYED):
            parts += [DEPLOYMENT, "", *_markdown(_deployed_lines(found)), ""]
        if found.repeated:
            parts += ["± is the standard deviation over n seeds. Trials:", "", *_markdown(_trial_lines(found)), ""]
        if found.uncertainty:
            parts += [f"{CERTAINTY} {found.uncertainty.draws} draws.", ""]
        if found.one_seed:
            parts += ["A method with n = 1 is one set of weights; another seed would give other numbers.", ""]
        parts += [line for mark, line in remarks(found) for line in (f"{mark} {line}", "")]
    rest = unfinished(board.table)
    if len(rest):
        parts += ["Without results:", ""]
        parts += [f"- `{row['run']}`: {row['state']}" + _because(row["reason"]) for row in _records(rest)] + [""]
    return "\n".join(parts)


def _certainty(found: Group, row: dict[str, Any]) -> dict[str, Any]:
    """The interval and the letters of a row, None where they are not known."""
    known = found.uncertainty.intervals.get(row["label"]) if found.uncertainty else None
    low, high = known or (None, None)
    return {"AP_low": low, "AP_high": high, "letters": letters(found, row) or None}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: None for what is not there."""
    return [{str(name): _none(value) for name, value in row.items()} for row in table.to_dict("records")]


def _none(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _method_lines(found: Group) -> list[list[str]]:
    columns = used(found)
    known = ["AP 95 %", "letters"] if found.uncertainty else []
    lines = [["method", "paradigm", "n", *known, *(column.title for column in columns), "score rule"]]
    for _, row in found.methods.iterrows():
        numbers = [f"{column.text(row[column.name])} {spread(column, row)}".strip() for column in columns]
        lines.append(
            [
                f"{row['label']} {marks(row)}".strip(),
                row["paradigm"] or "–",
                str(row["n"]),
                *([bounds(found, row) or "–", letters(found, row) or "–"] if known else []),
                *numbers,
                row["score_rule"] or "–",
            ]
        )
    return lines


def _deployed_lines(found: Group) -> list[list[str]]:
    columns = used(found, DEPLOYED)
    rows = [
        [row["label"], *(column.text(row[column.name]) for column in columns)] for _, row in found.methods.iterrows()
    ]
    return [["method", *(column.title for column in columns)], *rows]


def _trial_lines(found: Group) -> list[list[str]]:
    columns = used(found)
    lines = [["trial", *(column.title for column in columns)]]
    for _, row in found.trials.iterrows():
        lines.append([f"`{row['run']}` {marks(row)}".strip(), *(column.text(row[column.name]) for column in columns)])
    return lines


def _markdown(lines: list[list[str]]) -> list[str]:
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    head, *body = [f"| {' | '.join(line)} |" for line in cells]
    texts = {"method", "trial", "paradigm", "letters", "score rule"}
    rule = "|".join(" :-- " if cell in texts else " --: " for cell in lines[0])
    return [head, f"|{rule}|", *body]


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
