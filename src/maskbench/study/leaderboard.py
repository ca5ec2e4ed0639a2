"""Runs → tables: a row a trial, and a row a method with mean, standard deviation and n over its seeds.

Trials are tabled with others of their footing alone. AP is a share (0 to 1) in tables and files for programs, and × 100
in those for people, as the papers print it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from maskbench.study.runs import Run


@dataclass(frozen=True)
class Column:
    """A number of the table: its name in files, what people read, its heading's group, and how it is printed."""

    name: str
    heading: str
    group: str
    scale: float = 1.0
    digits: int = 1

    def text(self, value: Any) -> str:
        """The number as printed; a dash where there is none."""
        if value is None or pd.isna(value):
            return "–"
        return f"{value * self.scale:,.{self.digits}f}".replace(",", "\u2009")


COLUMNS = (
    Column("AP", "AP", "Mask AP", 100),
    Column("AP50", "AP50", "Mask AP", 100),
    Column("AP75", "AP75", "Mask AP", 100),
    Column("APs", "small", "Mask AP", 100),
    Column("APm", "medium", "Mask AP", 100),
    Column("APl", "large", "Mask AP", 100),
    Column("ceiling_AP", "ceiling", "Mask AP", 100),
    Column("box_AP", "AP", "Box", 100),
    Column("FPS", "FPS", "Throughput", 1, 1),
    Column("latency_ms", "median", "Latency, ms", 1, 1),
    Column("latency_p95_ms", "p95", "Latency, ms", 1, 1),
    Column("parameters_M", "params, M", "Size and cost", 1, 2),
    Column("GFLOPs", "GFLOPs", "Size and cost", 1, 2),
    Column("memory_MB", "memory, MB", "Size and cost", 1, 0),
    Column("train_memory_MB", "memory, MB", "Training", 1, 0),
    Column("train_minutes", "minutes", "Training", 1, 1),
    Column("images_seen", "images", "Training", 1, 0),
)
"""The numbers of a trial, in the table's order. Speeds stand in `SPEEDS` as well."""

SPEEDS = ("FPS", "latency_ms", "latency_p95_ms")
"""What depends on the environment and on nothing else."""

NUMBERS = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True)
class Group:
    """The trials of one footing: the AP of its rows may be compared.

    Args:
        footing: the key.
        trials: a row a finished trial.
        methods: a row a method and operating point: means over seeds, `NAME_std` beside `NAME`, `n`; best AP first.
        environment: the key that most trials share; speeds of others are flagged in `other_environment`.
    """

    footing: str
    trials: pd.DataFrame
    methods: pd.DataFrame
    environment: str

    @property
    def one_seed(self) -> bool:
        """Whether a method has one seed alone: what is found then belongs to its weights."""
        return bool((self.methods["n"] < 2).any())


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run in the runs' order, whatever its state; numbers it does not have are NaN."""
    paradigms = {run.method: run.metrics["paradigm"] for run in runs if "paradigm" in run.metrics}
    table = pd.DataFrame([_row(run, paradigms.get(run.method)) for run in runs])
    table[list(NUMBERS)] = table[list(NUMBERS)].astype(float)
    return table


def group(table: pd.DataFrame) -> list[Group]:
    """The finished trials by footing, the largest group first."""
    finished = table[table["state"] == "done"].fillna({"footing": "", "operating_point": "", "environment": ""})
    groups = [_group(str(footing), rows) for footing, rows in finished.groupby("footing", sort=True)]
    return sorted(groups, key=lambda found: -len(found.trials))


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """The trials without results, each with its state and reason."""
    return table.loc[table["state"] != "done", ["run", "method", "seed", "state", "attempts", "reason"]]


def write_leaderboard(study: Path, table: pd.DataFrame) -> dict[str, Path]:
    """leaderboard.csv (a row a trial), .json (trials and methods by footing) and .md (what people read)."""
    paths = {kind: study / f"leaderboard.{kind}" for kind in ("csv", "json", "md")}
    table.to_csv(paths["csv"], index=False)
    paths["json"].write_text(json.dumps(as_json(study.name, table), indent=2) + "\n", encoding="utf-8")
    paths["md"].write_text(as_markdown(study.name, table), encoding="utf-8")
    return paths


def as_json(study: str, table: pd.DataFrame) -> dict[str, Any]:
    groups = [
        {
            "footing": found.footing,
            "environment": found.environment,
            "methods": _records(found.methods),
            "trials": _records(found.trials),
        }
        for found in group(table)
    ]
    return {"study": study, "groups": groups, "unfinished": _records(unfinished(table))}


def as_markdown(study: str, table: pd.DataFrame) -> str:
    parts = [f"# {study}", ""]
    for found in group(table):
        parts += [f"Footing `{found.footing or 'unknown'}`. AP × 100, on masks of the test split.", ""]
        parts += _markdown(_method_lines(found)) + [""]
        if not found.one_seed:
            parts += ["± is the standard deviation over n seeds. Trials:", ""] + _markdown(_trial_lines(found)) + [""]
        else:
            parts += ["One seed a method: these numbers belong to these weights, not to the methods.", ""]
        if found.methods["other_environment"].any():
            parts += [f"† timed in another environment than `{found.environment}`: speeds can't be compared.", ""]
    rest = unfinished(table)
    if len(rest):
        parts += ["Without results:", ""]
        parts += [f"- `{row['run']}`: {row['state']}" + _because(row["reason"]) for row in _records(rest)] + [""]
    return "\n".join(parts)


def spread(column: Column, row: Any) -> str:
    """`± std` of a method's row as printed; empty with one seed."""
    std = row[f"{column.name}_std"]
    return "" if pd.isna(std) else f"± {column.text(std)}"


def used(found: Group) -> list[Column]:
    """The columns that hold a number in this group: COCO's large objects don't exist in small photos."""
    return [column for column in COLUMNS if found.methods[column.name].notna().any()]


def _row(run: Run, paradigm: str | None) -> dict[str, Any]:
    masks, boxes = run.metrics.get("segm", {}), run.metrics.get("bbox", {})
    return {
        "run": run.name,
        "method": run.method,
        "paradigm": paradigm,
        "seed": run.seed,
        "state": run.state,
        "attempts": run.attempts,
        "reason": run.reason,
        **{name: _share(masks.get(name)) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
        "box_AP": _share(boxes.get("AP")),
        "ceiling_AP": _share(run.metrics.get("ceiling", {}).get("segm", {}).get("AP")),
        **_costs(run.speed),
        "train_memory_MB": run.history["memory_mb"].max() if "memory_mb" in run.history else None,
        "train_minutes": run.metrics.get("minutes"),
        "images_seen": run.metrics.get("images_seen"),
        "score_rule": run.metrics.get("score_rule"),
        "checkpoint": run.metrics.get("checkpoint"),
        **{
            name: run.keys[name].key if name in run.keys else None
            for name in ("footing", "operating_point", "environment")
        },
    }


def _costs(speed: dict[str, Any]) -> dict[str, Any]:
    latency = speed.get("latency_ms", {})
    return {
        "FPS": speed.get("fps"),
        "latency_ms": latency.get("median"),
        "latency_p95_ms": latency.get("p95"),
        "parameters_M": _scaled(speed.get("parameters"), 1e6),
        "GFLOPs": _scaled(speed.get("flops"), 1e9),
        "GFLOPs_instances": speed.get("flops_instances"),
        "memory_MB": speed.get("memory_mb"),
    }


def _group(footing: str, rows: pd.DataFrame) -> Group:
    environment = _most_common(rows["environment"])
    trials = rows.assign(other_environment=rows["environment"] != environment).reset_index(drop=True)
    methods = [_method(found, environment) for _, found in trials.groupby(["method", "operating_point"], sort=True)]
    table = pd.DataFrame(methods).sort_values("AP", ascending=False, ignore_index=True, kind="stable")
    return Group(footing, trials, table, environment)


def _method(rows: pd.DataFrame, environment: str) -> dict[str, Any]:
    """Means over seeds; speeds over those trials alone that one environment has timed."""
    here = _most_common(rows["environment"])
    timed = rows[rows["environment"] == here]
    numbers: dict[str, float] = {}
    for name in NUMBERS:
        values = (timed if name in SPEEDS else rows)[name]
        numbers |= {name: values.mean(), f"{name}_std": values.std(ddof=1)}
    first = rows.iloc[0]
    return {
        "method": first["method"],
        "paradigm": first["paradigm"],
        "n": len(rows),
        "seeds": ", ".join(str(seed) for seed in sorted(rows["seed"])),
        **numbers,
        "GFLOPs_instances": rows["GFLOPs_instances"].mean(),
        "score_rule": first["score_rule"],
        "checkpoint": first["checkpoint"],
        "operating_point": first["operating_point"],
        "other_environment": here != environment or bool((rows["environment"] != here).any()),
    }


def _most_common(values: pd.Series) -> str:
    counts = Counter(str(value) for value in values)
    return min(counts, key=lambda value: (-counts[value], value))


def _share(value: float | None) -> float | None:
    """COCO writes −1 where there is nothing to find."""
    return None if value is None or value < 0 else value


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: None for what is not there."""
    return [{str(name): _none(value) for name, value in row.items()} for row in table.to_dict("records")]


def _none(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _method_lines(found: Group) -> list[list[str]]:
    columns = used(found)
    lines = [["method", "paradigm", "n", *(_long(column) for column in columns), "score rule"]]
    for _, row in found.methods.iterrows():
        numbers = [" ".join(filter(None, [column.text(row[column.name]), spread(column, row)])) for column in columns]
        mark = " †" if row["other_environment"] else ""
        lines.append([row["method"] + mark, row["paradigm"] or "–", str(row["n"]), *numbers, row["score_rule"] or "–"])
    return lines


def _trial_lines(found: Group) -> list[list[str]]:
    columns = used(found)
    lines = [["trial", *(_long(column) for column in columns)]]
    for _, row in found.trials.iterrows():
        mark = " †" if row["other_environment"] else ""
        lines.append([f"`{row['run']}`{mark}", *(column.text(row[column.name]) for column in columns)])
    return lines


def _long(column: Column) -> str:
    """A heading that needs no group above it."""
    long = {
        "APs": "AP small",
        "APm": "AP medium",
        "APl": "AP large",
        "ceiling_AP": "AP ceiling",
        "box_AP": "box AP",
        "latency_ms": "latency median, ms",
        "latency_p95_ms": "latency p95, ms",
        "train_memory_MB": "training memory, MB",
        "train_minutes": "training minutes",
        "images_seen": "training images",
    }
    return long.get(column.name, column.heading)


def _markdown(lines: list[list[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
    texts = {"method", "trial", "paradigm", "score rule"}
    rule = "|".join(" :-- " if cell in texts else " --: " for cell in lines[0])
    return [head, f"|{rule}|", *body]


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""
