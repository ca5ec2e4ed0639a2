"""The pictures of a study as SVG text: AP against FPS, AP by object size, why AP is lost, where the time goes,
latency against instances, precision over recall, reliability of scores, learning curves.

A method has one colour in all of them, a paradigm one marker; both can be told apart without seeing colour.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from maskbench.evaluation.calibration import Calibration
from maskbench.evaluation.precision_recall import RECALLS
from maskbench.study.leaderboard import ROW
from maskbench.study.runs import Run

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A4B9A", "#8A6642", "#4A5560")
"""Okabe and Ito's colours without yellow and black, and three that keep apart from them."""

MARKERS = {"two-stage": "s", "one-stage": "o", "bottom-up": "^", "hybrid": "D"}
ERRORS = {
    "class": ("#CC79A7", ""),
    "localisation": ("#0072B2", ""),
    "both": ("#56B4E9", "//"),
    "duplicate": ("#E69F00", ""),
    "background": ("#D55E00", "\\\\"),
    "missed": ("#009E73", ""),
    "rest": ("#e4e8ee", ""),
}
"""Colours and hatches of what AP50 lacks; what looks alike to some eyes is hatched or far apart."""
PHASES = {
    "prepare": ("#E69F00", ""),
    "backbone": ("#4A5560", ""),
    "network": ("#4A5560", "//"),
    "heads": ("#56B4E9", ""),
    "selection": ("#D55E00", ""),
    "masks": ("#009E73", "\\\\"),
}
"""Likewise of what a prediction spends its time on (`phases.PHASES`)."""
INK, MUTED, GRID = "#1d2733", "#5d6978", "#e4e8ee"
FACES = ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
LONG_NAME = 19
"""Letters of a name of which three stand beside each other in a legend."""
BESIDE = 32
"""Letters of a line beside a bar, for which there is room."""
SIZE = (6.4, 4.2)
"""Inches; at 96 pixels each this is a little less than half of the report's width, so that 10.5 pt stay 10.5 pt."""

SIDES = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
OFFSETS = tuple((10 * reach * x, 11 * reach * y) for reach in (1, 2, 3) for x, y in SIDES)
"""Where a label may stand, in points from its marker's centre; the nearer and the righter the better."""


@dataclass(frozen=True)
class Style:
    """How a method looks wherever it appears."""

    colour: str
    marker: str


def styles(paradigms: Mapping[str, str | None]) -> dict[str, Style]:
    """Colour by the method's place in the alphabet, marker by its paradigm.

    Where there are more methods than colours, they stand paradigm by paradigm, so that those of one colour have
    different markers.
    """
    order = sorted(paradigms)
    if len(order) > len(PALETTE):
        order.sort(key=lambda method: paradigms[method] or "")
    return {
        method: Style(PALETTE[place % len(PALETTE)], MARKERS.get(paradigms[method] or "", "D"))
        for place, method in enumerate(order)
    }


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (FPS, AP) no other beats in both; fastest first."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (-points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def ap_against_fps(
    methods: pd.DataFrame,
    trials: pd.DataFrame,
    looks: Mapping[str, Style],
    sizes: Mapping[str, Sequence[tuple[int, float, float]]] | None = None,
) -> str:
    """Means as large markers, single seeds as small ones, and the front: the best AP to be had at an FPS or more.

    What was read at several input sizes has a line through them.

    Args:
        methods: rows of `leaderboard.Group.methods`, those of the front's environment.
        trials: rows of `leaderboard.Group.trials`, likewise.
        looks: of `styles`.
        sizes: by label (short side, FPS, AP) at other input sizes, the smallest first.
    """
    known = sizes or {}
    with _figure() as figure:
        axes = figure.subplots()
        shown = methods.dropna(subset=["FPS", "AP"])
        points = list(zip(shown["FPS"], 100 * shown["AP"], strict=True))
        others = [(fps, 100 * ap) for own in known.values() for _, fps, ap in own]
        _scale_of_speed(axes, [fps for fps, _ in (*points, *others)])
        for _, row in shown[shown["label"].isin(list(known))].iterrows():
            _draw_sizes(axes, known[row["label"]], looks[row["method"]])
        for _, row in trials.dropna(subset=["FPS", "AP"]).iterrows():
            look = looks[row["method"]]
            axes.plot(row["FPS"], 100 * row["AP"], look.marker, color=look.colour, markersize=4, alpha=0.45, mew=0)
        for (fps, ap), method in zip(points, shown["method"], strict=True):
            look = looks[method]
            axes.plot(fps, ap, look.marker, color=look.colour, markersize=10, mec="white", mew=1.2, zorder=3)
        axes.margins(x=0.22, y=0.25)
        axes.autoscale_view()
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        line = _draw_front(axes, [*points, *others])
        axes.set_xlabel("FPS, batch 1 (faster to the right)")
        axes.set_ylabel("mask AP × 100")
        figure.draw_without_rendering()
        _place_labels(figure, axes, points, list(shown["label"]), line, others)
        return _svg(figure)


def _draw_sizes(axes: Axes, sizes: Sequence[tuple[int, float, float]], look: Style) -> None:
    """One method at several input sizes, each with its short side."""
    fps, ap = [own[1] for own in sizes], [100 * own[2] for own in sizes]
    axes.plot(fps, ap, look.marker + "-", color=look.colour, ms=4, lw=1.1, alpha=0.8, mew=0, zorder=2)
    for side, x, y in sizes:
        axes.annotate(str(side), (x, 100 * y), (0, 4), textcoords="offset points", ha="center", fontsize=7.5)


def learning_curve(run: Run) -> pd.DataFrame:
    """AP on tune with the images and minutes until then: after epochs that were validated, and of what was judged."""
    columns = ["images", "minutes", "AP"]
    if not {"tune/AP", "images", "minutes"} <= set(run.history):
        return pd.DataFrame(columns=columns)
    seen = run.history.dropna(subset=["tune/AP"]).rename(columns={"tune/AP": "AP"})[columns]
    end = run.metrics.get("tune", {}).get("segm", {}).get("AP")
    if end is None or run.metrics.get("checkpoint") != "last":
        return seen
    last = run.history.iloc[-1]
    judged = pd.DataFrame([{"images": last["images"], "minutes": last["minutes"], "AP": end}])
    return pd.concat([seen[seen["images"] < last["images"]], judged], ignore_index=True)


def learning_curves(runs: Sequence[Run], looks: Mapping[str, Style], against: Literal["images", "minutes"]) -> str:
    """AP on the tune split as training goes on, a line a seed."""
    with _figure() as figure:
        axes = figure.subplots()
        for run in runs:
            curve, look = learning_curve(run), looks[run.method]
            x, y = curve[against].to_numpy(float), 100 * curve["AP"].to_numpy(float)
            axes.plot(x, y, color=look.colour, lw=1.8, alpha=0.9, solid_capstyle="round")
            axes.plot(x[-1:], y[-1:], look.marker, color=look.colour, ms=6, mec="white")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel({"images": "training images seen", "minutes": "minutes of training"}[against])
        axes.set_ylabel("mask AP × 100 on tune")
        if against == "images":
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        _legend(figure, {run.method: looks[run.method] for run in runs})
        return _svg(figure)


def latency_by_instances(
    methods: pd.DataFrame, samples: Mapping[str, Sequence[Sequence[float]]], looks: Mapping[str, Style]
) -> str:
    """What each photo took against the instances found on it.

    Args:
        methods: rows of `leaderboard.Group.methods`, those of one environment.
        samples: by label (instances, milliseconds) of each photo.
        looks: of `styles`.
    """
    shown = methods[methods["label"].isin(list(samples))]
    with _figure() as figure:
        axes = figure.subplots()
        for _, row in shown.iterrows():
            look, (found, latency) = looks[row["method"]], np.array(samples[row["label"]], dtype=float).T
            axes.plot(found, latency, look.marker, color=look.colour, ms=4, alpha=0.6, mew=0)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="instances found", ylabel="ms a prediction")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _legend(figure, {row["label"]: looks[row["method"]] for _, row in shown.iterrows()})
        return _svg(figure)


def ap_by_size(methods: pd.DataFrame, trials: pd.DataFrame, looks: Mapping[str, Style]) -> str:
    """Bars of mean AP for each of COCO's object sizes that the test split has; dots are single seeds."""
    kinds = [("APs", "small\n< 32² px"), ("APm", "medium\n32²–96² px"), ("APl", "large\n> 96² px")]
    kinds = [(name, text) for name, text in kinds if methods[name].notna().any()]
    width = 0.8 / max(len(methods), 1)
    with _figure() as figure:
        axes = figure.subplots()
        for place, (_, row) in enumerate(methods.iterrows()):
            look = looks[row["method"]]
            own = trials[(trials[ROW] == row[ROW]).all(axis=1)]
            for column, (name, _) in enumerate(kinds):
                x = column + (place - (len(methods) - 1) / 2) * width
                axes.bar(x, 100 * row[name], width * 0.88, color=look.colour, lw=0)
                if len(own) > 1:
                    axes.plot([x] * len(own), 100 * own[name], "o", color=INK, ms=4, mew=0.8, mec="white")
        axes.set_xticks(range(len(kinds)), [text for _, text in kinds])
        axes.tick_params(axis="x", length=0, pad=8)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.6, len(kinds) - 0.4)
        axes.set_ylabel("mask AP × 100")
        _legend(figure, {row["label"]: looks[row["method"]] for _, row in methods.iterrows()}, bars=True)
        return _svg(figure)


def precision_over_recall(methods: pd.DataFrame, curves: Mapping[str, np.ndarray], looks: Mapping[str, Style]) -> str:
    """Precision at each recall, mean over classes: lines at an IoU of 0.5, broken ones at 0.75.

    Args:
        methods: rows of `leaderboard.Group.methods`.
        curves: by label, `precision_recall.mean_curve`.
        looks: of `styles`.
    """
    shown = methods[methods["label"].isin(list(curves))]
    with _figure() as figure:
        axes = figure.subplots()
        for _, row in shown.iterrows():
            for threshold, line in ((0, "-"), (5, "--")):
                axes.plot(RECALLS, curves[row["label"]][threshold], line, color=looks[row["method"]].colour, lw=1.6)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        _legend(figure, {row["label"]: looks[row["method"]] for _, row in shown.iterrows()})
        return _svg(figure)


def reliability(methods: pd.DataFrame, found: Mapping[str, Calibration], looks: Mapping[str, Style]) -> str:
    """The share of right detections against their mean score; scores that are what they say lie on the diagonal.

    Args:
        methods: rows of `leaderboard.Group.methods`.
        found: by label.
        looks: of `styles`.
    """
    shown = methods[methods["label"].isin(list(found))]
    with _figure() as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#8d99a8", lw=1.2, zorder=1)
        for _, row in shown.iterrows():
            look, own = looks[row["method"]], found[row["label"]]
            there = own.counts > 0
            axes.plot(
                own.score[there], own.right[there], look.marker + "-", color=look.colour, ms=5, lw=1.4, mec="white"
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="share of detections that are right")
        _legend(figure, {row["label"]: looks[row["method"]] for _, row in shown.iterrows()})
        return _svg(figure)


def why_ap_is_lost(methods: pd.DataFrame, missing: Mapping[str, Mapping[str, float]]) -> str:
    """A bar a method of what its AP50 lacks to 100: what curing each kind of error would gain, and the rest.

    Args:
        methods: rows of `leaderboard.Group.methods`.
        missing: by label the parts of the bar, each 0 to 1, the same names of `ERRORS` for all; a negative one (cures
            that do each other's work) has no width.
    """
    shown = methods[methods["label"].isin(list(missing))]
    bars = {
        f"{row['label']}, {100 * row['AP50']:.1f}": {
            name: max(0.0, 100 * part) for name, part in missing[row["label"]].items()
        }
        for _, row in shown.iterrows()
    }
    return _stacked(bars, ERRORS, "missing to an AP50 of 100")


def where_time_goes(methods: pd.DataFrame, phases: Mapping[str, Mapping[str, float]]) -> str:
    """A bar a method of the milliseconds that an image takes, phase by phase.

    Args:
        methods: rows of `leaderboard.Group.methods`, those of one environment.
        phases: by label, milliseconds by the names of `PHASES`.
    """
    shown = methods.loc[methods["label"].isin(list(phases)), "label"]
    known = {name: look for name, look in PHASES.items() if any(name in phases[label] for label in shown)}
    return _stacked({label: phases[label] for label in shown}, known, "ms a prediction, mean")


def _stacked(bars: Mapping[str, Mapping[str, float]], parts: Mapping[str, tuple[str, str]], axis: str) -> str:
    """Bars from top to bottom, each of `parts` (colour and hatch by name), those that it lacks without width."""
    names, left = [textwrap.fill(label, BESIDE) for label in bars], np.zeros(len(bars))
    with _figure() as figure:
        axes = figure.subplots()
        for name, (colour, hatch) in parts.items():
            widths = np.array([bars[label].get(name, 0.0) for label in bars])
            axes.barh(names, widths, left=left, color=colour, hatch=hatch, ec="white", lw=0.8, label=name)
            left += widths
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=1.2, columnspacing=1.4)
        return _svg(figure)


@contextmanager
def _figure() -> Iterator[Figure]:
    """A figure in the report's style; no global state, no window."""
    settings: Any = {
        "font.family": _face(),
        "font.size": 10.5,
        "axes.edgecolor": "#b6bfca",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelcolor": MUTED,
        "axes.labelpad": 7,
        "axes.linewidth": 0.9,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "svg.hashsalt": "maskbench",
        "text.color": INK,
        "xtick.color": "#b6bfca",
        "xtick.labelcolor": MUTED,
        "ytick.color": "#b6bfca",
        "ytick.labelcolor": MUTED,
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(settings):
        # 72 dots an inch, so that text is measured as the SVG will have it.
        figure = Figure(figsize=SIZE, dpi=72, layout="constrained", facecolor="white")
        yield figure


@cache
def _face() -> str:
    """The first of the faces that this machine has; matplotlib brings the last."""
    present = set(font_manager.get_font_names())
    return next(face for face in FACES if face in present)


def _svg(figure: Figure) -> str:
    with io.BytesIO() as file:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return file.getvalue().decode()


def _scale_of_speed(axes: Axes, fps: Sequence[float]) -> None:
    """Logarithmic where the slowest and the fastest are far apart."""
    if fps and max(fps) >= 4 * min(fps):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Draw the steps from the fastest point up to the best, and return their corners."""
    front = [points[place] for place in pareto_front(points)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    fps = [front[0][0], *(point[0] for point in front), left]
    ap = [bottom, *(point[1] for point in front), front[-1][1]]
    axes.fill_between(fps, ap, bottom, step="post", color="#f1f4f8", lw=0, zorder=0)
    axes.step(fps, ap, where="post", color="#8d99a8", lw=1.2, zorder=1)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    corners = [
        corner for one, two in pairwise(range(len(fps))) for corner in ((fps[one], ap[one]), (fps[two], ap[one]))
    ]
    return [*corners, (fps[-1], ap[-1])]


def _place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    line: Sequence[tuple[float, float]],
    small: Sequence[tuple[float, float]] = (),
) -> None:
    """Each label at the first place beside its point that is free of points, of the line and of other labels.

    `small` are points with numbers above them.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    taken = [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7) for x, y in axes.transData.transform(points)]
    if small:
        taken += [Bbox.from_extents(x - 8, y - 3, x + 8, y + 13) for x, y in axes.transData.transform(small)]
    bends = axes.transData.transform(line)
    taken += [Bbox([np.minimum(one, two) - 2, np.maximum(one, two) + 2]) for one, two in pairwise(bends)]
    frame = axes.get_window_extent(renderer)
    for point, label in zip(points, labels, strict=True):
        text = axes.annotate(label, point, (0, 0), textcoords="offset points", fontsize=10.5, zorder=4)
        boxes = [_moved(text, offset).get_window_extent(renderer) for offset in OFFSETS]
        costs = [sum(_overlap(box, other) for other in taken) + _outside(box, frame) for box in boxes]
        best = int(np.argmin(costs))
        _moved(text, OFFSETS[best])
        taken.append(boxes[best])


def _moved(text: Annotation, offset: tuple[int, int]) -> Annotation:
    """The label at an offset from its point, turned towards it."""
    dx, dy = offset
    text.set_position((dx, dy))
    text.set(ha=_side(dx, "left", "right"), va=_side(dy, "bottom", "top"))
    return text


def _side(offset: float, before: str, after: str) -> str:
    return "center" if not offset else before if offset > 0 else after


def _overlap(one: BboxBase, other: BboxBase) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)


def _outside(box: BboxBase, frame: BboxBase) -> float:
    """Pixels of area that lie beyond the axes, which weigh more than an overlap."""
    return 10 * float(box.width * box.height - _overlap(box, frame))


def _legend(figure: Figure, looks: Mapping[str, Style], bars: bool = False) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            marker="s" if bars else look.marker,
            lw=0 if bars else 1.8,
            ms=7,
            mec="white",
            label=label,
        )
        for label, look in looks.items()
    ]
    columns = 3 if max(map(len, looks), default=0) <= LONG_NAME else 2  # what is wider than the figure is cut off
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, handlelength=1.8, columnspacing=1.6
    )


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
