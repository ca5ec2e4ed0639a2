"""One self-contained page for a study: finding, table, pictures, photos side by side, and what may be compared."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from maskbench.atomic import replace_text
from maskbench.study.board import CERTAINTY, DEPLOYMENT, SEMANTICS, Board
from maskbench.study.findings import caution, finding
from maskbench.study.gallery import TINTS, Gallery, gallery
from maskbench.study.labels import differences
from maskbench.study.leaderboard import COLUMNS, DEPLOYED, Column, Group, bounds, letters, marks, remarks, spread, used
from maskbench.study.pictures import Picture, pictures, write
from maskbench.study.plots import Style, styles
from maskbench.study.published import LIKE, Published, published
from maskbench.study.runs import KEYS, Key, Run


@dataclass(frozen=True)
class Strata:
    """AP by a property of the objects: the parts with their number of objects, and by row the AP of each part."""

    by: str
    parts: dict[str, int]
    rows: dict[str, list[float | None]]


@dataclass(frozen=True)
class Oracles:
    """AP were a part of the truth given: the parts, and by row the AP with each; None of what a row can't be given."""

    parts: list[str]
    rows: dict[str, list[float | None]]


LADDER = ("as it is", "classes", "boxes", "cells", "semantic map", "centres", "flows", "count", "ceiling")
"""What may be given, from nothing to all but the resolution of the masks."""


@dataclass(frozen=True)
class Section:
    """All that is said of one footing.

    Args:
        columns, deployed: of the leaderboard, and of the table of deployment points.
        spans: the headings above the columns' headings, each with the columns it spans.
        keys: the distinct keys of a kind among the trials.
        strata: tables of AP by a property of the objects.
        reach: by row how many true objects come through each stage of its paradigm, and of how many.
        papers: by row AP and speed at the thresholds of its paper.
        oracles: AP of each row, were a part of the truth given.
        other_speeds: those under other conditions than the leaderboard's, by conditions and row.
        published: what its methods have published.
        epochs: of its trainings, one number or the least and the most.
        data: what the data set is like, in a line; None where no run says it.
        apart: the fields in which the study's footings differ, with this one's value.
    """

    group: Group
    runs: list[Run]
    finding: str
    columns: list[Column]
    deployed: list[Column]
    spans: list[tuple[str, int]]
    pictures: list[Picture]
    gallery: Gallery
    keys: dict[str, list[Key]]
    strata: list[Strata]
    reach: dict[str, dict[str, dict[str, int]]]
    oracles: Oracles
    papers: dict[str, dict[str, Any]]
    other_speeds: dict[str, dict[str, dict[str, Any]]]
    published: Published
    epochs: list[int]
    data: str | None
    apart: dict[str, object] = field(default_factory=dict)

    def value(self, name: str) -> object:
        """A field of the footing, None where the footing is not known."""
        return self.keys["footing"][0].fields.get(name) if self.keys["footing"] else None


def write_report(board: Board) -> Path:
    """Write a study's plots (plots/*.svg) and report/index.html.

    Works at any moment and from the run folders alone: what is not finished is named.

    Returns:
        The page.
    """
    looks = styles(dict(zip(board.table["method"], board.table["paradigm"], strict=True)))
    sections = [_section(found, board.runs, looks, board.study / "plots") for found in board.groups]
    _mark_differences(sections)
    page = board.study / "report" / "index.html"
    replace_text(page, _render(board.study, board.runs, sections, looks))
    return page


def _section(found: Group, runs: Sequence[Run], looks: dict[str, Style], plots: Path) -> Section:
    named = {run.name: run for run in runs}
    own = [named[name] for name in found.trials["run"]]
    columns = [column for column in used(found) if column.name != "images_seen"]
    first = _first_seeds(found, own)
    drawn = pictures(found, own, first, looks)
    write(plots, found.footing, drawn)
    return Section(
        group=found,
        runs=own,
        finding=finding(found),
        columns=columns,
        deployed=used(found, DEPLOYED),
        spans=[(name, len(list(heads))) for name, heads in groupby(columns, key=lambda column: column.group)],
        pictures=drawn,
        gallery=gallery(first),
        keys={kind: _distinct(own, kind) for kind in KEYS},
        strata=[strata for by in _properties(own) if (strata := _strata(found, own, by)).rows],
        oracles=_oracles(found, own),
        papers={label: point for label, run in first.items() if (point := run.points.get("paper"))},
        reach={label: stages for label, run in first.items() if (stages := run.metrics.get("reach"))},
        other_speeds=_other_speeds(first),
        published=published(found),
        epochs=_range([run.metrics["epochs"] for run in own if run.metrics.get("epochs")]),
        data=next((_profile(run.data) for run in own if run.data), None),
    )


def _other_speeds(first: Mapping[str, Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Speeds of the first seeds under other conditions than the table's: by conditions, by row."""
    speeds: dict[str, dict[str, dict[str, Any]]] = {}
    for label, run in first.items():
        for conditions, speed in run.speeds.items():
            speeds.setdefault(conditions, {})[label] = speed
    return dict(sorted(speeds.items()))


def _properties(runs: Sequence[Run]) -> list[str]:
    """Of the objects, by which AP is known."""
    return list(dict.fromkeys(by for run in runs for by in run.metrics.get("strata", {}).get("segm", {})))


def _strata(found: Group, runs: Sequence[Run], by: str) -> Strata:
    """Means over the seeds of each row; None where there are no such objects."""
    known = {run.name: parts for run in runs if (parts := run.metrics.get("strata", {}).get("segm", {}).get(by))}
    parts = {name: int(part["truths"]) for name, part in next(iter(known.values()), {}).items()}
    rows = {}
    for label in found.methods["label"]:
        seeds = [known[name] for name in found.trials.loc[found.trials["label"] == label, "run"] if name in known]
        if seeds:
            rows[label] = [
                mean(own[name]["AP"] for own in seeds) if objects else None for name, objects in parts.items()
            ]
    return Strata(by, parts, rows)


def _oracles(found: Group, runs: Sequence[Run]) -> Oracles:
    """Means over the seeds of each row, as far as all of them know."""
    labels = found.trials.set_index("run")["label"]
    known: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        given = {"as it is": run.metrics.get("segm", {}), **run.metrics.get("oracles", {})}
        given["ceiling"] = run.metrics.get("ceiling", {}).get("segm", {})
        aps = {part: numbers["AP"] for part, numbers in given.items() if numbers.get("AP", -1) >= 0}
        known.setdefault(labels[run.name], []).append(aps)
    parts = [part for part in LADDER if any(part in own for seeds in known.values() for own in seeds)]
    rows = {
        label: [mean(own[part] for own in seeds) if all(part in own for own in seeds) else None for part in parts]
        for label, seeds in known.items()
    }
    return Oracles(parts, {label: rows[label] for label in found.methods["label"]})


def _first_seeds(found: Group, runs: Sequence[Run]) -> dict[str, Run]:
    """The first run of each row, in the table's order."""
    named = {run.name: run for run in runs}
    first = found.trials.drop_duplicates("label").set_index("label")["run"]
    return {label: named[first[label]] for label in found.methods["label"]}


def _range(values: Sequence[int]) -> list[int]:
    return sorted({min(values), max(values)}) if values else []


def _profile(data: dict[str, Any]) -> str:
    """The training file in a line, from its data.json."""
    parts = [f"{data['name']}: {data['images']} photos"]
    if data["instances"]:
        parts.append(f"{data['instances'] / data['images']:.1f} instances an image")
        parts.append(f"median size {data['sizes'][len(data['sizes']) // 2]:.0f} px")
        parts.append(f"{100 * data['crowding']:.0f} % touch a neighbour")
    return ", ".join(parts)


def _distinct(runs: Sequence[Run], kind: str) -> list[Key]:
    return list({run.keys[kind].key: run.keys[kind] for run in runs if kind in run.keys}.values())


def _mark_differences(sections: Sequence[Section]) -> None:
    """Name, for several footings, the fields that they differ in."""
    apart = differences(key for section in sections for key in section.keys["footing"])
    for section in sections:
        for key in section.keys["footing"]:
            section.apart.update(apart[key.key])


def _render(study: Path, runs: Sequence[Run], sections: list[Section], looks: dict[str, Style]) -> str:
    environment = Environment(
        loader=PackageLoader("maskbench.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = study.resolve()
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return environment.get_template("report.html.j2").render(
        study=path.name,
        path=shlex.quote(str(here)),
        runs=runs,
        sections=sections,
        unfinished=[run for run in runs if run.state != "done"],
        looks=looks,
        caution=caution(runs),
        ended=max((run.ended for run in runs if run.ended), default=None),
        columns={column.name: column for column in COLUMNS},
        certainty=CERTAINTY,
        deployment=DEPLOYMENT,
        semantics=SEMANTICS,
        bounds=bounds,
        letters=letters,
        tints=TINTS,
        like=LIKE,
        marks=marks,
        remarks=remarks,
        spread=spread,
    )
