"""The pictures of a section of the report, each with what to read from it and with its numbers as a table."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd

from maskbench.atomic import replace_text
from maskbench.evaluation.calibration import BINS, Calibration, calibrate
from maskbench.evaluation.precision_recall import RECALLS, mean_curve
from maskbench.study import plots
from maskbench.study.leaderboard import Group, timing
from maskbench.study.plots import ERRORS, PHASES, Style
from maskbench.study.runs import Run


@dataclass(frozen=True)
class Table:
    """The numbers of a picture, as text: the first cell of a line says what it is of."""

    heads: list[str]
    lines: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A plot, what to read from it, and its numbers.

    Args:
        name: of its file.
        title, note: what people read beside it.
        svg: the plot.
        table: the same for those who don't see it, or want more digits.
    """

    name: str
    title: str
    note: str
    svg: str
    table: Table

    @property
    def uri(self) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"


def pictures(found: Group, runs: Sequence[Run], first: Mapping[str, Run], looks: Mapping[str, Style]) -> list[Picture]:
    """All that a group has numbers for.

    Args:
        found: the group.
        runs: its trials.
        first: the first seed of each row, by label.
        looks: of `plots.styles`.
    """
    return [
        *_speed(found, runs, first, looks),
        *_precision(found, runs, looks),
        *_scores(found, first, looks),
        *_learning(runs, looks),
    ]


def write(folder: Path, footing: str, drawn: Sequence[Picture]) -> None:
    """Every plot as a file of its own."""
    for picture in drawn:
        replace_text(folder / f"{picture.name}-{footing or 'unknown'}.svg", picture.svg)


def _speed(
    found: Group, runs: Sequence[Run], first: Mapping[str, Run], looks: Mapping[str, Style]
) -> Iterator[Picture]:
    here = found.methods[~found.methods["timed_elsewhere"]]
    if len(here.dropna(subset=["FPS", "AP"])):
        yield _front(found, here, runs, looks)
    speeds = {label: first[label].speed for label in here["label"]}
    phases = {label: own["phases"] for label, own in speeds.items() if own.get("phases")}
    if phases := {label: own for label, own in phases.items() if set(own) <= set(PHASES)}:
        yield _phases(found, phases)
    if timed := {label: own for label, own in speeds.items() if own.get("samples")}:
        yield _latency(here, timed, looks)


def _front(found: Group, here: pd.DataFrame, runs: Sequence[Run], looks: Mapping[str, Style]) -> Picture:
    points = here.dropna(subset=["FPS", "AP"]).sort_values("FPS", ascending=False)
    note = f"The line is the front: the highest mask AP to be had at that FPS or more.{_seeds(found)}"
    lines = [[row["label"], f"{row['FPS']:.1f}", _percent(row["AP"])] for _, row in points.iterrows()]
    if sizes := {label: own for label in here["label"] if (own := _sizes(label, found, runs))}:
        note += (
            " Thin lines: the same weights read at other input sizes, whose short sides stand beside the marks, timed "
            "in a call of their own."
        )
        lines += [
            [f"{label}, short side {side}", f"{fps:.1f}", _percent(ap)]
            for label, own in sizes.items()
            for side, fps, ap in own
        ]
    timed = found.trials[~found.trials["timed_elsewhere"]]
    svg = plots.ap_against_fps(here, timed, looks, sizes)
    return Picture("ap-fps", "AP against speed", note, svg, Table(["method", "FPS", "mask AP"], lines))


def _sizes(label: str, found: Group, runs: Sequence[Run]) -> list[tuple[int, float, float]]:
    """Short side, FPS and AP at other input sizes: means over the seeds of a row, where all were timed as most were."""
    named = {run.name: run for run in runs}
    seeds = [named[name].points for name in found.trials.loc[found.trials["label"] == label, "run"]]
    means = []
    for side in sorted(filter(str.isdigit, set.intersection(*map(set, seeds))), key=int):
        points = [own[side] for own in seeds]
        if all(timing(point) == found.timing and not point["loaded"] and point["AP"] >= 0 for point in points):
            means.append((int(side), mean(point["fps"] for point in points), mean(point["AP"] for point in points)))
    return means


def _phases(found: Group, phases: Mapping[str, Mapping[str, float]]) -> Picture:
    note = (
        "From the network input in host memory to masks at photo size, means over the photos of the first seed. "
        "Encoding is not in it."
    )
    names = [name for name in PHASES if any(name in own for own in phases.values())]
    lines = [
        [label, *(f"{own.get(name, 0):.1f}" for name in names), f"{sum(own.values()):.1f}"]
        for label, own in phases.items()
    ]
    svg = plots.where_time_goes(found.methods, phases)
    return Picture("phases", "Where the time goes", note, svg, Table(["ms a prediction", *names, "sum"], lines))


def _latency(here: pd.DataFrame, timed: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Style]) -> Picture:
    note = (
        "Each mark is one photo of the first seed, at the lowest threshold or at the deployment point: what it took, "
        "and how many instances were found on it."
    )
    parts = {
        label: {"lowest threshold": own["samples"], "deployed": own.get("deployment", {}).get("samples", [])}
        for label, own in timed.items()
    }
    samples = {label: [sample for part in own.values() for sample in part] for label, own in parts.items()}
    lines = [
        [f"{label}, {name}", *_thirds(part)] for label, own in parts.items() for name, part in own.items() if len(part)
    ]
    svg = plots.latency_by_instances(here, samples, looks)
    heads = ["instances found: median", "fewest", "between", "most"]
    return Picture("latency", "Latency against instances", note, svg, Table(heads, lines))


def _thirds(samples: Sequence[Sequence[float]]) -> list[str]:
    """Medians of thirds of the photos, by the instances found on them."""
    ranked = np.array(samples)[np.lexsort(np.array(samples).T[::-1])]
    thirds = [part for part in np.array_split(ranked, 3) if len(part)]
    cells = [f"{part[0, 0]:.0f} to {part[-1, 0]:.0f}: {median(part[:, 1]):.1f} ms" for part in thirds]
    return [*cells, *[""] * (3 - len(cells))]


def _precision(found: Group, runs: Sequence[Run], looks: Mapping[str, Style]) -> Iterator[Picture]:
    sizes = {"APs": "small", "APm": "medium", "APl": "large"}
    sizes = {name: text for name, text in sizes.items() if found.methods[name].notna().any()}
    if sizes:
        note = f"Mask AP by the area of the true object in the photo.{_seeds(found)}"
        lines = [[row["label"], *(_percent(row[name]) for name in sizes)] for _, row in found.methods.iterrows()]
        svg = plots.ap_by_size(found.methods, found.trials, looks)
        yield Picture("ap-size", "AP by object size", note, svg, Table(["mask AP", *sizes.values()], lines))
    if missing := errors(found, runs):
        note = (
            "What is missing to an AP50 of 100 (the AP50 stands beside the name), by kind of error (TIDE): the gain if "
            "that kind alone were cured. The rest are errors that hide one another."
        )
        lines = [[label, *(f"{100 * part:.1f}" for part in own.values())] for label, own in missing.items()]
        shown = {label: {name: own[name] for name in ERRORS} for label, own in missing.items()}
        svg = plots.why_ap_is_lost(found.methods, shown)
        table = Table(["AP50 gained by curing", *next(iter(missing.values()))], lines)
        yield Picture("errors", "Why AP is lost", note, svg, table)


def errors(found: Group, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """What AP50 lacks by row: the gains of cures and the rest, means over its seeds; without rows that don't know."""
    labels = found.trials.set_index("run")["label"]
    known: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        if why := run.metrics.get("errors", {}).get("segm"):
            known.setdefault(labels[run.name], []).append({**why["gains"], "rest": why["rest"]})
    return {label: {part: mean(parts[part] for parts in seeds) for part in seeds[0]} for label, seeds in known.items()}


def _scores(found: Group, first: Mapping[str, Run], looks: Mapping[str, Style]) -> Iterator[Picture]:
    known = {label: run.matches for label, run in first.items() if run.matches}
    if not known:
        return
    note = "Mean over classes at an IoU of 0.5, broken lines at 0.75; of the first seed."
    curves = {label: mean_curve(matches) for label, matches in known.items()}
    svg = plots.precision_over_recall(found.methods, curves, looks)
    yield Picture("recall", "Precision and recall", note, svg, _by_recall(curves))
    scores = {label: calibrate(matches) for label, matches in known.items()}
    off = [f"{label} {100 * own.error:.0f}" for label, own in scores.items() if own.counts.any()]
    note = "Scores that are what they say lie on the line."
    note += f" Expected calibration error × 100, first seed: {', '.join(off)}." if off else ""
    svg = plots.reliability(found.methods, scores, looks)
    yield Picture("scores", "Are scores what they say?", note, svg, _by_score(scores))


def _learning(runs: Sequence[Run], looks: Mapping[str, Style]) -> Iterator[Picture]:
    curves = {run.name: plots.learning_curve(run) for run in runs}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return
    lines = [
        [name, f"{row['images']:,.0f}", f"{row['minutes']:.1f}", _percent(row["AP"])]
        for name, curve in curves.items()
        for _, row in curve.iterrows()
    ]
    table = Table(["run", "images seen", "minutes", "AP on tune"], lines)
    note = "AP on the tune split as training goes on, a line a seed."
    svg = plots.learning_curves(runs, looks, "images")
    yield Picture("curve-images", "Learning, by images", note, svg, table)
    note = "The same by the clock, which depends on the machine and its load."
    svg = plots.learning_curves(runs, looks, "minutes")
    yield Picture("curve-minutes", "Learning, by minutes", note, svg, table)


def _by_recall(curves: Mapping[str, np.ndarray]) -> Table:
    levels = range(0, len(RECALLS), 10)
    lines = [
        [f"{label}, IoU {iou}", *(_percent(max(0.0, curve[threshold][level])) for level in levels)]
        for label, curve in curves.items()
        for iou, threshold in (("0.5", 0), ("0.75", 5))
    ]
    return Table(["precision at a recall of", *(f"{100 * RECALLS[level]:.0f}" for level in levels)], lines)


def _by_score(scores: Mapping[str, Calibration]) -> Table:
    heads = [f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}" for place in range(BINS)]
    lines = [
        [label, *(f"{_percent(right)} of {count}" for right, count in zip(own.right, own.counts, strict=True))]
        for label, own in scores.items()
    ]
    return Table(["right, %, by score", *heads], lines)


def _seeds(found: Group) -> str:
    return " Small marks are single seeds." if found.repeated else ""


def _percent(share: float) -> str:
    return "–" if share is None or np.isnan(share) else f"{100 * share:.1f}"
