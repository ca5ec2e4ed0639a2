"""The panels of W&B's dashboards: which numbers that runs have logged are drawn, and how.

Lines and bars of several seeds are their mean, in the range of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces.reports.v2.interface import PanelTypes

from maskbench.study.leaderboard import Column

AP = "test/segm/AP"
FPS = "speed/fps"
LOSS = "train/loss"
TUNE = "tune/AP"

COSTS = {
    "speed/parameters": "parameters",
    "speed/memory_mb": "memory, MB",
    "minutes": "training minutes",
    FPS: "FPS",
    AP: "mask AP",
}


class Seeds(TypedDict):
    """What panels of grouped runs are told."""

    groupby_aggfunc: Any
    groupby_rangefunc: Any
    max_runs_to_show: int


def front() -> PanelTypes:
    """AP against FPS, over runs."""
    return wr.ScatterPlot(
        title="mask AP against FPS",
        x=wr.SummaryMetric(FPS),
        y=wr.SummaryMetric(AP),
        log_x=True,
        layout=wr.Layout(w=12, h=9),
    )


def costs() -> PanelTypes:
    """What a method takes and what it gives."""
    lines = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config("method_name"), display_name="method")]
    lines += [
        wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(name), display_name=title)
        for name, title in COSTS.items()
    ]
    return wr.ParallelCoordinatesPlot(title="costs and AP", columns=lines, layout=wr.Layout(w=12, h=9))


def by_size(columns: Sequence[Column], runs: int) -> list[PanelTypes]:
    """Bars of those columns of the leaderboard."""
    return [
        wr.BarPlot(
            title=column.title,
            metrics=[f"test/segm/{column.name}"],
            max_bars_to_show=runs,
            layout=wr.Layout(w=8, h=8),
            **_seeds(runs),
        )
        for column in columns
    ]


def curves(runs: int) -> list[PanelTypes]:
    """AP on tune as training goes on."""
    return [
        wr.LinePlot(
            title=f"mask AP on tune against {title}",
            x=name,
            y=[TUNE],
            title_x=title,
            title_y="mask AP",
            layout=wr.Layout(w=12, h=9),
            **_seeds(runs),
        )
        for name, title in {"images": "training images seen", "hours": "hours of training"}.items()
    ]


def loss(name: str, runs: int) -> PanelTypes:
    """Each method's own: how the losses of two methods compare says nothing."""
    return wr.LinePlot(
        title=name, x="trainer/global_step", y=[name], title_x="steps", layout=wr.Layout(w=24, h=9), **_seeds(runs)
    )


def photos() -> PanelTypes:
    """The same photos for all runs, below each other, with the masks that each has found."""
    return wr.MediaBrowser(
        title="masks on photos of tune",
        media_keys=["tune/photos"],
        mode="grid",
        grid_x_axis="index",
        grid_y_axis="run",
        layout=wr.Layout(w=24, h=16),
    )


def settings() -> PanelTypes:
    """What runs differ in."""
    return wr.RunComparer(diff_only="split")


def table(key: str) -> PanelTypes:
    """A table that the study's own run has logged."""
    return wr.WeavePanelSummaryTable(table_name=key, layout=wr.Layout(w=24, h=10))


def front_of(key: str) -> PanelTypes:
    """AP against FPS of a scatter that the study's own run has logged."""
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name="wandb/scatter/v0",
        chart_fields={"x": "FPS", "y": "AP"},
        chart_strings={"title": "mask AP against FPS, other systems included"},
        layout=wr.Layout(w=24, h=10),
    )


def _seeds(runs: int) -> Seeds:
    return {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax", "max_runs_to_show": runs}
