from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from maskbench.errors import DashboardError
from maskbench.study.board import Board
from maskbench.study.dashboard import make, push, write
from shown import nodes, shown


def read(study: Path) -> dict[str, Any]:
    return make(Board.read(study, certain=False)).as_json()


def headings(workspace: dict[str, Any]) -> list[str]:
    return [section["name"] for section in workspace["section"]["panelBankConfig"]["sections"]]


def filters(dashboard: dict[str, Any]) -> list[list[tuple[str, str, Any]]]:
    """Of each set of runs."""
    return [
        [(one["key"]["name"], one["op"], one["value"]) for one in node["filters"]["filters"]]
        for node in nodes(dashboard)
        if "filterFormat" in node.get("filters", {})
    ]


class Server:
    """Takes what is pushed, as W&B's API does: a dashboard without an id is a new one."""

    default_entity = "somebody"
    _service_api: Any

    def __init__(self) -> None:
        self.saved: dict[str, dict[str, Any]] = {}
        self.projects_made: list[str] = []
        self._service_api = SimpleNamespace(app_url="https://wandb.invalid/", execute_graphql=self.execute)

    def projects(self, entity: str) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.projects_made]

    def create_project(self, name: str, entity: str) -> None:
        self.projects_made.append(name)

    def execute(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        known = variables.get("id") or f"id{len(self.saved)}"
        self.saved[known] = variables
        view = {"id": known, "name": variables["name"], "displayName": variables["displayName"]}
        return {"upsertView": {"view": view | {"project": {"name": "maskbench", "entityName": "somebody"}}}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(wandb, "Api", lambda: server)
    return server


def test_the_workspace_shows_what_is_known_of_a_study(study: Path) -> None:
    made = read(study)
    assert headings(made["workspace"]) == [
        "AP and FPS",
        "AP by size of the objects",
        "AP on tune",
        "Loss",
        "Photos of tune",
        "Settings",
    ]
    assert shown(made["workspace"]).together == {
        ("images", "tune/AP"),
        ("hours", "tune/AP"),
        ("trainer/global_step", "train/loss"),
        ("tune/photos",),
    }
    bars = {name for name in shown(made).over_runs if name.startswith("summary:test/segm/AP")}
    assert bars == {"summary:test/segm/AP", "summary:test/segm/APs", "summary:test/segm/APm"}  # no object is large


def test_both_show_the_trials_of_the_study_by_method(study: Path) -> None:
    made = read(study)
    own = [("group", "=", "shapes"), ("jobType", "!=", "study")]
    assert filters(made["workspace"]) == [own]
    assert filters(made["report"]) == [own, [("name", "=", "shapes-leaderboard")]]
    grouped = [node["grouping"] for node in nodes(made) if node.get("grouping")]
    assert grouped == 2 * [[{"section": "config", "name": "method_name.value"}]]


def test_a_study_that_was_moved_shows_the_trials_that_w_and_b_knows(writer: Any) -> None:
    folder = writer("solov2-small", study="earlier")
    assert filters(read(folder.parent)["workspace"])[0][0] == ("group", "=", "earlier")


def test_rows_of_one_method_are_told_apart_by_what_they_differ_in(writer: Any) -> None:
    for width in (48, 64):
        folder = writer("solov2-small", method={"_target_": "maskbench.methods.solov2", "width": width})
    (grouped,) = [node["grouping"] for node in nodes(read(folder.parent)["workspace"]) if node.get("grouping")]
    assert [key["name"] for key in grouped] == ["method_name.value", "method.value.width"]


def test_footings_are_shown_apart(writer: Any) -> None:
    for seed in (0, 1):
        writer("solov2-small", seed)
    folder = writer("mask_rcnn-small", 0, fingerprint="other")
    made = read(folder.parent)
    (workspace,) = filters(made["workspace"])
    assert workspace[2][:2] == ("name", "IN")
    assert [name.rpartition("-")[0] for name in workspace[2][2]] == [
        f"shapes-solov2-small-seed{seed}" for seed in (0, 1)
    ]
    parts = [ids for own in filters(made["report"]) for name, op, ids in own if op == "IN"]
    assert [len(ids) for ids in parts] == [2, 1]
    assert len(shown(made).tables) == 4
    assert "methods" not in shown(made).tables


def test_a_study_without_results_shows_its_curves(writer: Any) -> None:
    folder = writer("solov2-small", failed="stopped")
    made = read(folder.parent)
    assert headings(made["workspace"]) == ["AP on tune", "Loss", "Photos of tune", "Settings"]
    assert "No trial has results yet." in json.dumps(made["report"])


def test_no_panel_of_the_report_lies_on_another(study: Path) -> None:
    grids = [node["panelBankSectionConfig"]["panels"] for node in nodes(read(study)["report"]) if "runSets" in node]
    assert [len(panels) for panels in grids] == [8, 2]
    for panels in grids:
        for one, other in combinations([panel["layout"] for panel in panels], 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above


def test_what_is_pushed_is_what_is_written(study: Path, server: Server) -> None:
    path = study / "report" / "dashboard.json"
    made = make(Board.read(study, certain=False))
    write(made, path)
    written = json.loads(path.read_text())
    assert push(made, path) == {
        "workspace": f"https://wandb.invalid/somebody/maskbench?nw={server.saved['id1']['name'][3:-2]}",
        "report": "https://wandb.invalid/somebody/maskbench/reports/shapes--id0",
    }
    assert server.projects_made == ["maskbench"]
    sent = {variables["type"]: json.loads(variables["spec"]) for variables in server.saved.values()}
    assert sent == {"runs": written["report"], "project-view": written["workspace"]}


def test_a_study_that_is_pushed_again_changes_what_was_pushed(study: Path, server: Server) -> None:
    path = study / "report" / "dashboard.json"
    for _ in range(2):
        made = make(Board.read(study, certain=False))
        write(made, path)
        addresses = push(made, path)
    assert list(server.saved) == ["id0", "id1"]
    made = make(Board.read(study, certain=False), entity="team")
    write(made, path)
    assert push(made, path) != addresses
    assert [server.saved[known]["entityName"] for known in server.saved] == [*2 * ["somebody"], *2 * ["team"]]


def test_the_half_of_a_push_that_arrived_is_known_the_next_time(
    study: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study / "report" / "dashboard.json"
    made = make(Board.read(study, certain=False))
    take = server.execute

    def cut(query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if server.saved:
            raise ConnectionError("no route to W&B")
        return take(query, variables)

    monkeypatch.setattr(server._service_api, "execute_graphql", cut)
    with pytest.raises(DashboardError, match=r"ConnectionError: no route to W&B\). It needs a network and a login"):
        push(made, path)
    monkeypatch.setattr(server._service_api, "execute_graphql", take)
    push(make(Board.read(study, certain=False)), path)
    assert list(server.saved) == ["id0", "id1"]
