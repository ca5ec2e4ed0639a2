"""Runs → tables: a row a trial, and a row a method with mean, standard deviation and n over its seeds.

Trials are tabled with others of their footing alone. AP is a share (0 to 1) in tables and files for programs, and × 100
in those for people, as the papers print it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from maskbench.study.labels import labels
from maskbench.study.runs import Run
from maskbench.study.uncertainty import Uncertainty


@dataclass(frozen=True)
class Column:
    """A number of the table.

    Args:
        name: in files.
        title: where it stands alone.
        group, heading: where a heading above spans several columns.
        scale, digits: how it is printed.
    """

    name: str
    title: str
    group: str
    heading: str
    scale: float = 1.0
    digits: int = 1

    def text(self, value: Any) -> str:
        """The number as printed, thousands apart; a dash where there is none."""
        if value is None or pd.isna(value):
            return "–"
        return f"{value * self.scale:,.{self.digits}f}".replace(",", "\u2009")


COLUMNS = (
    Column("AP", "AP", "Mask AP", "AP", 100),
    Column("AP50", "AP50", "Mask AP", "AP50", 100),
    Column("AP75", "AP75", "Mask AP", "AP75", 100),
    Column("APs", "AP small", "Mask AP", "small", 100),
    Column("APm", "AP medium", "Mask AP", "medium", 100),
    Column("APl", "AP large", "Mask AP", "large", 100),
    Column("ceiling_AP", "AP ceiling", "Mask AP", "ceiling", 100),
    Column("boundary_AP", "boundary AP", "Mask AP", "boundary", 100),
    Column("box_AP", "box AP", "Box", "AP", 100),
    Column("mIoU", "mIoU", "Semantic map", "mIoU", 100),
    Column("pixel_accuracy", "pixel accuracy", "Semantic map", "pixels right", 100),
    Column("FPS", "FPS", "Throughput", "FPS"),
    Column("latency_ms", "median ms", "Latency, ms", "median"),
    Column("latency_p95_ms", "p95 ms", "Latency, ms", "p95"),
    Column("parameters_M", "parameters, M", "Network", "params, M", digits=2),
    Column("GFLOPs", "GFLOPs", "Network", "GFLOPs", digits=2),
    Column("memory_MB", "memory, MB", "Network", "memory, MB", digits=0),
    Column("train_memory_MB", "training memory, MB", "Training", "memory, MB", digits=0),
    Column("train_minutes", "training minutes", "Training", "minutes"),
    Column("images_seen", "training images", "Training", "images", digits=0),
)
"""The numbers of a trial, in the table's order. Speeds stand in `SPEEDS` as well."""

DEPLOYED = (
    Column("deployed_threshold", "deployed from score", "Deployment point", "score from", digits=2),
    Column("deployed_F1", "deployed F1", "Deployment point", "F1", 100),
    Column("deployed_precision", "deployed precision", "Deployment point", "precision", 100),
    Column("deployed_recall", "deployed recall", "Deployment point", "recall", 100),
    Column("deployed_FPS", "deployed FPS", "Deployment point", "FPS"),
    Column("deployed_instances", "deployed instances an image", "Deployment point", "instances an image"),
    Column("PQ", "PQ", "Quality of what is kept", "PQ", 100),
    Column("abs_DiC", "|DiC|", "Quality of what is kept", "|DiC|", digits=2),
    Column("SBD", "SBD", "Quality of what is kept", "SBD", 100),
    Column("accuracy50", "TP/(TP+FP+FN) at 0.5", "Quality of what is kept", "TP/(TP+FP+FN) at 0.5", 100),
    Column("accuracy", "TP/(TP+FP+FN) at 0.5–0.95", "Quality of what is kept", "at 0.5–0.95", 100),
)
"""What a trial is worth at one threshold, chosen on tune: a table of its own."""

SPEEDS = ("FPS", "latency_ms", "latency_p95_ms", "deployed_FPS")
"""What depends on where it was timed."""

ROW = ["method", "settings", "operating_point"]
"""What the trials of a row of methods share; they differ in the seed."""

NUMBERS = tuple(column.name for column in (*COLUMNS, *DEPLOYED))

HASHES = {
    "footing": "footing",
    "operating_point": "operating_point",
    "settings": "method",
    "environment": "environment",
}
"""Columns of the fairness keys; the method's own settings are not called `method`, which is its name."""


@dataclass(frozen=True)
class Group:
    """The trials of one footing: the AP of its rows may be compared.

    Args:
        footing: the key.
        trials: a row a finished trial, in the order of `methods`.
        methods: a row a method, settings and operating point: means over seeds, `NAME_std` beside `NAME`, `n`; best AP
            first.
        timing: where most trials were timed; the speeds of others are flagged in `timed_elsewhere`.
        commit: of maskbench, that most were trained with; others are flagged in `other_commit`.
        uncertainty: of the rows' AP, as far as their matches are known.
    """

    footing: str
    trials: pd.DataFrame
    methods: pd.DataFrame
    timing: str
    commit: str
    uncertainty: Uncertainty | None = None

    @property
    def one_seed(self) -> bool:
        """Whether a method has one seed alone: what is found then belongs to its weights."""
        return bool((self.methods["n"] < 2).any())

    @property
    def repeated(self) -> bool:
        """Whether a method has several seeds: then there are deviations to be shown."""
        return bool((self.methods["n"] > 1).any())


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a run in the runs' order, whatever its state; numbers it does not have are NaN."""
    paradigms = {run.method: run.metrics["paradigm"] for run in runs if "paradigm" in run.metrics}
    rows = zip(runs, labels(runs), strict=True)
    table = _frame([_row(run, paradigms.get(run.method), label) for run, label in rows])
    table[list(NUMBERS)] = table[list(NUMBERS)].astype(float)
    return table


def group(table: pd.DataFrame) -> list[Group]:
    """The finished trials by footing, the largest group first, which guests join."""
    finished = table[table["state"] == "done"].fillna(dict.fromkeys(HASHES, ""))
    own, guests = finished[~finished["guest"]], finished[finished["guest"]]
    sizes = own["footing"].value_counts(sort=False)
    groups = [
        # guests have no footing: they stand in the largest group, and are marked
        _group(str(footing), pd.concat([rows, guests]) if footing == sizes.idxmax() and len(guests) else rows)
        for footing, rows in own.groupby("footing", sort=True)
    ]
    return sorted(groups, key=lambda found: -len(found.trials))


def unfinished(table: pd.DataFrame) -> pd.DataFrame:
    """The trials without results, each with its state and reason."""
    return table.loc[table["state"] != "done", ["run", "method", "seed", "state", "attempts", "reason"]]


def remarks(found: Group) -> list[tuple[str, str]]:
    """Marks of the rows whose numbers can't be taken as they are, and what they mean."""
    marks = []
    if found.methods["guest"].any():
        marks.append(
            (
                "§",
                "Footing unknown: another system's predictions, scored as ours are. What it was trained on, from which "
                "weights and how long is its own affair, and so is how its speed was measured.",
            )
        )
    if found.uncertainty and set(found.methods["label"]) - set(found.uncertainty.intervals):
        marks.append(
            ("–", "No interval: a run kept no matches; `maskbench evaluate run=DIR` makes them from its predictions.")
        )
    if found.methods["timed_elsewhere"].any():
        marks.append(
            ("†", f"Timed elsewhere than the others ({found.timing or 'not timed'}): these speeds can't be compared.")
        )
    if found.methods["other_commit"].any():
        marks.append(
            (
                "*",
                f"Trained with maskbench as it was at another commit than the others' ({found.commit[:7]}). A change "
                "that is known to move results makes other trials; this tells of the rest.",
            )
        )
    if found.methods["in_parts"].any():
        marks.append(
            (
                "¶",
                "Memory ran out: trained on parts of a batch, whose gradients were added up. Batch statistics and what "
                "a loss is divided by are those of a part.",
            )
        )
    if found.methods["skipped"].any():
        marks.append(
            (
                "‖",
                "Trained without photos that could not be read (data.unreadable=skip), in whose place was nothing; the "
                "run's metrics.json says how many (unreadable).",
            )
        )
    if found.methods["loaded"].any():
        marks.append(("‡", "Timed while other processes used the machine: slower than it is. Time it again, alone."))
    return marks


def marks(row: Any) -> str:
    """The marks of one row."""
    kinds = {
        "guest": "§",
        "timed_elsewhere": "†",
        "loaded": "‡",
        "other_commit": "*",
        "in_parts": "¶",
        "skipped": "‖",
    }
    return "".join(mark for kind, mark in kinds.items() if row[kind])


def spread(column: Column, row: Any) -> str:
    """`± std` of a method's row, for the numbers that are compared; empty with one seed."""
    std = row[f"{column.name}_std"]
    return "" if pd.isna(std) or column.name not in ("AP", "box_AP", "FPS") else f"± {column.text(std)}"


def bounds(found: Group, row: Any) -> str:
    """The 95 % interval of a row's AP as printed, empty where it is not known."""
    known = found.uncertainty and found.uncertainty.intervals.get(row["label"])
    return f"{100 * known[0]:.1f} to {100 * known[1]:.1f}" if known else ""


def letters(found: Group, row: Any) -> str:
    """The letters of a row: rows that share one can't be told apart by AP. Empty where that is not known."""
    return found.uncertainty.letters.get(row["label"], "") if found.uncertainty else ""


def used(found: Group, columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """The columns that hold a number in this group: COCO's large objects don't exist in small photos."""
    return [column for column in columns if found.methods[column.name].notna().any()]


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table whose texts stay as they are: None, where pandas would put a number that is none."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    texts = {name for name, values in columns.items() if name not in NUMBERS and any(value is None for value in values)}
    return pd.DataFrame(
        {name: pd.Series(column, dtype=object if name in texts else None) for name, column in columns.items()}
    )


def _row(run: Run, paradigm: str | None, label: str) -> dict[str, Any]:
    keys = {column: run.keys[kind].key if kind in run.keys else None for column, kind in HASHES.items()}
    masks, boxes, edges = (run.metrics.get(kind, {}) for kind in ("segm", "bbox", "boundary"))
    return {
        "run": run.name,
        "method": run.method,
        "label": label,
        "paradigm": paradigm,
        "seed": run.seed,
        "guest": run.guest,
        "state": run.state,
        "attempts": run.attempts,
        "reason": run.reason,
        **{name: _share(masks.get(name)) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
        "boundary_AP": _share(edges.get("AP")),
        "box_AP": _share(boxes.get("AP")),
        "mIoU": run.metrics.get("semantic", {}).get("mIoU"),
        "pixel_accuracy": run.metrics.get("semantic", {}).get("pixel_accuracy"),
        "ceiling_AP": _share(run.metrics.get("ceiling", {}).get("segm", {}).get("AP")),
        **_costs(run),
        **_at_deployment_point(run),
        "train_memory_MB": run.history["memory_mb"].max() if "memory_mb" in run.history else None,
        "train_minutes": run.metrics.get("minutes"),
        "images_seen": run.metrics.get("images_seen"),
        "epochs": run.metrics.get("epochs"),
        "lr_factor": run.metrics.get("plan", {}).get("lr_factor", 1.0),
        "score_rule": run.metrics.get("score_rule"),
        "checkpoint": run.metrics.get("checkpoint"),
        "commit": (run.keys["environment"].fields.get("commit") or "") if "environment" in run.keys else "",
        "in_parts": run.metrics.get("parts", {}).get("count", 1) > 1,
        "skipped": run.metrics.get("unreadable", {}).get("photos", 0) > 0,
        **keys,
    }


def _costs(run: Run) -> dict[str, Any]:
    speed = run.speed
    return {
        "FPS": speed.get("fps"),
        "latency_ms": speed.get("latency_ms"),
        "latency_p95_ms": speed.get("p95_ms"),
        "parameters_M": _scaled(speed.get("parameters"), 1e6),
        "GFLOPs": _scaled(speed.get("flops"), 1e9),
        "GFLOPs_instances": speed.get("flops_instances"),
        "memory_MB": speed.get("memory_mb"),
        "timing": timing(speed),
        "loaded": bool(speed.get("loaded")),
    }


def _at_deployment_point(run: Run) -> dict[str, Any]:
    """At the run's deployment point, on test."""
    point: dict[str, Any] = run.metrics.get("deployment", {})
    kept, speed = point.get("test", {}), run.speed.get("deployment", {})
    counts: dict[str, Any] = kept.get("counting", {}).get("overall", {})
    images = run.metrics.get("images")
    return {
        "deployed_threshold": point.get("threshold"),
        "deployed_F1": _share(kept.get("f1")),
        "deployed_precision": _share(kept.get("precision")),
        "deployed_recall": _share(kept.get("recall")),
        "deployed_FPS": speed.get("fps"),
        "deployed_instances": kept["detections"] / images if kept and images else None,
        "PQ": _share(kept.get("pq")),
        "abs_DiC": counts.get("abs_dic"),
        "SBD": counts.get("sbd"),
        "accuracy50": _share(kept.get("accuracy", {}).get("0.50")),
        "accuracy": _share(kept.get("mean_accuracy")),
    }


def timing(speed: Mapping[str, Any]) -> str:
    """Where and how something was timed, in words: often not where it was trained; empty where it was not timed."""
    if not speed:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(speed.get("versions", {}).items()))
    parts = [speed.get("device_name"), _threads(speed.get("threads")), speed.get("precision"), versions]
    return ", ".join(str(part) for part in parts if part)


def _threads(count: int | None) -> str:
    return f"{count} thread{'s' if count > 1 else ''}" if count else ""


def _group(footing: str, rows: pd.DataFrame) -> Group:
    place = _most_common(rows.loc[~rows["guest"], "timing"])
    elsewhere = (rows["timing"] != place) & (rows["timing"] != "")
    commit = _most_common(rows["commit"])
    others = (rows["commit"] != commit) & (rows["commit"] != "")
    trials = rows.assign(timed_elsewhere=elsewhere, other_commit=others).reset_index(drop=True)
    methods = [_method(found, place) for _, found in trials.groupby(ROW, sort=True)]
    table = _frame(methods).sort_values("AP", ascending=False, ignore_index=True, kind="stable")
    rank = {label: place for place, label in enumerate(table["label"])}
    trials = trials.sort_values(["label", "seed"], key=lambda values: values.replace(rank), ignore_index=True)
    return Group(footing, trials, table, place, commit)


def _method(rows: pd.DataFrame, place: str) -> dict[str, Any]:
    """Means over seeds; speeds over those trials alone that were timed in one place, the group's if there are any."""
    own = rows["timing"] == place
    timed = rows[own] if own.any() else rows[rows["timing"] == _most_common(rows["timing"])]
    numbers: dict[str, float] = {}
    for name in NUMBERS:
        values = (timed if name in SPEEDS else rows)[name]
        numbers |= {name: values.mean(), f"{name}_std": values.std(ddof=1)}
    first = rows.iloc[0]
    return {
        "method": first["method"],
        "label": first["label"],
        "paradigm": first["paradigm"],
        "n": len(rows),
        "seeds": ", ".join(str(seed) for seed in sorted(rows["seed"])),
        **numbers,
        "GFLOPs_instances": rows["GFLOPs_instances"].mean(),
        "score_rule": first["score_rule"],
        "checkpoint": first["checkpoint"],
        "settings": first["settings"],
        "operating_point": first["operating_point"],
        "guest": bool(first["guest"]),
        "timed_elsewhere": bool(timed["timed_elsewhere"].any()),
        "loaded": bool(timed["loaded"].any()),
        "other_commit": bool(rows["other_commit"].any()),
        "in_parts": bool(rows["in_parts"].any()),
        "skipped": bool(rows["skipped"].any()),
    }


def _most_common(values: pd.Series) -> str:
    """Of those that say something; empty where none does."""
    counts = Counter(str(value) for value in values if value) or {"": 0}
    return min(counts, key=lambda value: (-counts[value], value))


def _share(value: float | None) -> float | None:
    """COCO writes −1 where there is nothing to find."""
    return None if value is None or value < 0 else value


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
