"""The study's dashboards in W&B, as code: a workspace (a saved view of the project) and a report.

Trials are shown with others of their footing alone: the workspace has those of the largest footing, the report a part
for each. They are grouped as the leaderboard's rows are.

What is drawn are numbers that the trials' own W&B runs have logged. Their FPS are known once they were timed, at the
end of training (`speed.enabled`) or by `benchmark`, which goes on with a run that has ended. Other systems' predictions
have no W&B run: they stand in the table of the study's own, and in its AP against FPS.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces.expr import And
from wandb_workspaces.reports.v2.interface import PanelTypes

from maskbench.atomic import replace_text
from maskbench.errors import DashboardError
from maskbench.study import panels
from maskbench.study.board import Board
from maskbench.study.findings import caution, finding
from maskbench.study.labels import differences
from maskbench.study.leaderboard import Group, used
from maskbench.study.runs import Run
from maskbench.study.wandb_run import group_of, run_id, suffix, timed
from maskbench.sweep.identity import wandb_id

SIZES = ("APs", "APm", "APl")


@dataclass(frozen=True)
class Dashboards:
    """Both, as the library that sends them has them."""

    workspace: ws.Workspace
    report: wr.Report

    def as_json(self) -> dict[str, Any]:
        """What is sent of each."""
        # `save` is the library's only public way to it, and that needs a network
        made = {"workspace": self.workspace._to_model(), "report": self.report._to_model()}
        return {
            name: model.spec.model_dump(mode="json", by_alias=True, exclude_none=True) for name, model in made.items()
        }


def make(board: Board, project: str = "maskbench", entity: str | None = None) -> Dashboards:
    """The dashboards of a study, of what its runs have logged so far; no network is needed.

    Args:
        board: the study.
        project, entity: W&B's project and whose it is (None: one's own, as the login tells when they are pushed).
    """
    name = board.study.resolve().name
    parts: list[Group | None] = [*board.groups] or [None]
    workspace = ws.Workspace(
        entity=entity or "",
        project=project,
        name=name,
        sections=_sections(board, parts[0]),
        settings=ws.WorkspaceSettings(max_runs=len(board.runs)),
        runset_settings=ws.RunsetSettings(
            filters=_trials(board, parts[0]),
            groupby=[ws.Config(path) for path in _rows(_runs(board, parts[0]))],
            order=[ws.Ordering(ws.Summary(panels.AP), ascending=False)],
            pinned_columns=[f"summary:{panels.AP}", f"summary:{panels.FPS}"],
        ),
    )
    blocks = [block for found in parts for block in _blocks(board, found)]
    return Dashboards(workspace, wr.Report(project, entity=entity or "", title=name, blocks=blocks, width="fluid"))


def write(made: Dashboards, path: Path) -> None:
    """Write what W&B is to show as JSON; which dashboards were pushed before stays known."""
    _save(path, made, _pushed(path))


def push(made: Dashboards, path: Path) -> dict[str, str]:
    """Make the dashboards in W&B, or bring those up to date that were pushed before.

    Args:
        made: the dashboards.
        path: where they are written, with their ids in W&B.

    Returns:
        Their addresses.

    Raises:
        DashboardError: W&B can't be reached, there is no login, or it does not take them.
    """
    try:
        return _push(made, path)
    except Exception as error:  # of many kinds, and bare ones: W&B's, and those of the library between
        raise DashboardError(
            f"W&B did not take the dashboards ({type(error).__name__}: {str(error).rstrip('.')}). It needs a network "
            "and a login (`wandb login`, or WANDB_API_KEY). The report is written all the same, and what was to be "
            f"sent stands in {path}; where a dashboard was deleted in W&B, delete that file as well: new ones are made"
        ) from error


def _push(made: Dashboards, path: Path) -> dict[str, str]:
    workspace, report = made.workspace, made.report
    workspace.entity = report.entity = report.entity or str(wandb.Api().default_entity)
    place, pushed = f"{report.entity}/{report.project}", _pushed(path)
    known = pushed.get(place, {"workspace": ["", ""], "report": ""})
    # a workspace has no public way to say which one it is, and a second one would be made
    workspace._internal_name, workspace._internal_id = known["workspace"]
    report.id = known["report"]
    try:
        report.save()  # which makes the project, if need be
        workspace.save()
    finally:
        ids = {"workspace": [workspace._internal_name, workspace._internal_id], "report": report.id}
        _save(path, made, pushed | {place: ids})
    return {"workspace": workspace.url, "report": report.url}


def _pushed(path: Path) -> dict[str, Any]:
    """By project the ids of what was pushed before; nothing where that is not known."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["pushed"]
    except (FileNotFoundError, ValueError, KeyError):
        return {}


def _save(path: Path, made: Dashboards, pushed: dict[str, Any]) -> None:
    replace_text(path, json.dumps(made.as_json() | {"pushed": pushed}, indent=2) + "\n")


def _sections(board: Board, found: Group | None) -> list[ws.Section]:
    """Of the workspace; what is more than the report has is closed at first."""
    losses = sorted(name for name in _history(board, found) if name.startswith("train/") and name != panels.LOSS)
    parts = [panels.loss(name, len(board.runs)) for name in losses]
    more = {"Parts of the loss": parts, "Settings": [panels.settings()]}
    return [
        *(ws.Section(name=name, panels=drawn, is_open=True) for name, drawn in _drawn(board, found).items()),
        *(ws.Section(name=name, panels=drawn) for name, drawn in more.items() if drawn),
    ]


def _blocks(board: Board, found: Group | None) -> list[Any]:
    """The report's part for a footing."""
    trials = wr.Runset(
        name="trials",
        filters=_trials(board, found),
        groupby=[f"config.{path}" for path in _rows(_runs(board, found))],
        order=[wr.OrderBy(wr.SummaryMetric(panels.AP), ascending=False)],
    )
    grid = wr.PanelGrid(runsets=[trials], panels=[one for drawn in _drawn(board, found).values() for one in drawn])
    if found is None:
        return [wr.P("No trial has results yet."), grid]
    study = wr.Runset(name="leaderboard", filters=And(ws.Metric("ID") == run_id(board)))
    key = suffix(board, found)
    tables = [panels.table(f"methods{key}"), *([] if timed(found).empty else [panels.front_of(f"ap_against_fps{key}")])]
    return [
        wr.H2(f"Footing {found.footing or 'unknown'}"),
        *(wr.P(text) for text in (finding(found), caution(board.runs)) if text),
        grid,
        wr.H3("Leaderboard"),
        wr.PanelGrid(runsets=[study], panels=tables),
    ]


def _drawn(board: Board, found: Group | None) -> dict[str, list[PanelTypes]]:
    """The panels of a footing by their heading, as far as its trials have logged what they show."""
    runs, history = len(board.runs), _history(board, found)
    sizes = [column for column in used(found) if column.name in SIZES] if found else []
    tuned = panels.TUNE in history
    drawn = {
        "AP and FPS": [panels.front(), panels.costs()] if found and len(timed(found)) else [],
        "AP by size of the objects": panels.by_size(sizes, runs),
        "AP on tune": panels.curves(runs) if tuned else [],
        "Loss": [panels.loss(panels.LOSS, runs)] if panels.LOSS in history else [],
        "Photos of tune": [panels.photos()] if tuned else [],
    }
    return {heading: some for heading, some in drawn.items() if some}


def _trials(board: Board, found: Group | None) -> And:
    """The trials of a footing, or of the study where it has one alone: those to come are shown then as well."""
    own = [ws.Metric("Group") == group_of(board), ws.Metric("JobType") != "study"]
    if found and len(board.groups) > 1:
        own.append(ws.Metric("ID").isin([wandb_id(group_of(board), run.name) for run in _runs(board, found)]))
    return And(*own)


def _runs(board: Board, found: Group | None) -> list[Run]:
    """Those of a footing that have a W&B run; all of the study where none is finished."""
    own = {run.name for run in board.runs} if found is None else set(found.trials["run"])
    return [run for run in board.runs if run.name in own and not run.guest]


def _history(board: Board, found: Group | None) -> set[str]:
    """What is known of the trials' every epoch."""
    return {str(name) for run in _runs(board, found) for name in run.history}


def _rows(runs: list[Run]) -> list[str]:
    """Settings by which runs fall into the leaderboard's rows: the method, and what several rows of one differ in."""
    keys = [
        differences(run.keys["method"] for run in runs if run.method == method and "method" in run.keys)
        for method in {run.method for run in runs}
    ]
    keys.append(differences(run.keys["operating_point"] for run in runs if "operating_point" in run.keys))
    return ["method_name", *sorted({path for apart in keys for own in apart.values() for path in own})]
