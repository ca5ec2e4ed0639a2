"""One self-contained page for a study: finding, table, pictures, photos side by side, and what may be compared."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from maskbench.evaluation.calibration import calibrate
from maskbench.evaluation.precision_recall import mean_curve
from maskbench.evaluation.strata import EXPLAINED
from maskbench.study.board import CERTAINTY, DEPLOYMENT, Board
from maskbench.study.findings import caution, finding
from maskbench.study.leaderboard import COLUMNS, DEPLOYED, Column, Group, bounds, letters, marks, remarks, spread, used
from maskbench.study.plots import (
    ERRORS,
    PHASES,
    Style,
    ap_against_fps,
    ap_by_size,
    learning_curves,
    precision_over_recall,
    reliability,
    styles,
    where_time_goes,
    why_ap_is_lost,
)
from maskbench.study.runs import KEYS, Key, Run

PHOTOS = 6
"""Rows of the gallery."""


@dataclass(frozen=True)
class Picture:
    """A plot, and what to read from it."""

    title: str
    note: str
    image: str


@dataclass(frozen=True)
class Gallery:
    """The same photos as they are, with the truth, and as each row of the table sees them.

    A row is an image id with a picture, or None, for each column.
    """

    columns: int
    rows: list[tuple[int, list[str | None]]]


@dataclass(frozen=True)
class Strata:
    """AP by a property of the objects: the parts with their number of objects, and by row the AP of each part."""

    by: str
    parts: dict[str, int]
    rows: dict[str, list[float | None]]


@dataclass(frozen=True)
class Section:
    """All that is said of one footing.

    Args:
        columns, deployed: of the leaderboard, and of the table of deployment points.
        spans: the headings above the columns' headings, each with the columns it spans.
        keys: the distinct keys of a kind among the trials.
        strata: tables of AP by a property of the objects.
        reach: by row how many true objects come through each stage of its paradigm, and of how many.
        conditions: speeds under other conditions than the leaderboard's, by conditions and row.
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
    conditions: dict[str, dict[str, dict[str, Any]]]
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
    page.parent.mkdir(exist_ok=True)
    page.write_text(_render(board.study, board.runs, sections, looks), encoding="utf-8")
    return page


def _section(found: Group, runs: Sequence[Run], looks: dict[str, Style], plots: Path) -> Section:
    named = {run.name: run for run in runs}
    own = [named[name] for name in found.trials["run"]]
    columns = [column for column in used(found) if column.name != "images_seen"]
    first = _first_seeds(found, own)
    return Section(
        group=found,
        runs=own,
        finding=finding(found),
        columns=columns,
        deployed=used(found, DEPLOYED),
        spans=[(name, len(list(heads))) for name, heads in groupby(columns, key=lambda column: column.group)],
        pictures=_pictures(found, own, looks, plots),
        gallery=_gallery(found, own),
        keys={kind: _distinct(own, kind) for kind in KEYS},
        strata=[strata for by in EXPLAINED if (strata := _strata(found, own, by)).rows],
        reach={label: stages for label, run in first.items() if (stages := run.metrics.get("reach"))},
        conditions=_conditions(found, own),
        data=next((_profile(run.data) for run in own if run.data), None),
    )


def _pictures(found: Group, runs: Sequence[Run], looks: dict[str, Style], plots: Path) -> list[Picture]:
    """The plots of a section, which are written as files of their own as well."""
    here = found.methods[~found.methods["timed_elsewhere"]]
    timed = found.trials[~found.trials["timed_elsewhere"]]
    seeds = " Small marks are single seeds." if found.repeated else ""
    drawn: list[tuple[str, str, str, str]] = []
    if len(here.dropna(subset=["FPS", "AP"])):
        note = f"The line is the front: the highest mask AP to be had at that FPS or more.{seeds}"
        drawn.append(("ap-fps", "AP against speed", note, ap_against_fps(here, timed, looks)))
    if phases := _phases(found, runs):
        note = "From the photo's bytes to its masks, means over the photos of the first seed. Encoding is not in it."
        drawn.append(("phases", "Where the time goes", note, where_time_goes(found.methods, phases)))
    if found.methods[["APs", "APm", "APl"]].notna().any(axis=None):
        note = f"Mask AP by the area of the true object in the photo.{seeds}"
        drawn.append(("ap-size", "AP by object size", note, ap_by_size(found.methods, found.trials, looks)))
    if missing := _errors(found, runs):
        note = (
            "What is missing to an AP50 of 100 (the AP50 stands beside the name), by kind of error (TIDE): the gain if "
            "that kind alone were cured. The rest are errors that hide one another."
        )
        drawn.append(("errors", "Why AP is lost", note, why_ap_is_lost(found.methods, missing)))
    if known := {label: run.matches for label, run in _first_seeds(found, runs).items() if run.matches}:
        note = "Mean over classes at an IoU of 0.5, broken lines at 0.75; of the first seed."
        curves = {label: mean_curve(matches) for label, matches in known.items()}
        drawn.append(("recall", "Precision and recall", note, precision_over_recall(found.methods, curves, looks)))
        scores = {label: calibrate(matches) for label, matches in known.items()}
        errors = [f"{label} {100 * own.error:.0f}" for label, own in scores.items() if own.counts.any()]
        note = "Scores that are what they say lie on the line."
        note += f" Expected calibration error × 100, first seed: {', '.join(errors)}." if errors else ""
        drawn.append(("scores", "Are scores what they say?", note, reliability(found.methods, scores, looks)))
    if any("tune/AP" in run.history for run in runs):
        note = "AP on the tune split after each epoch, a line a seed."
        drawn.append(("curve-images", "Learning, by images", note, learning_curves(runs, looks, "images")))
        note = "The same epochs by the clock, which depends on the machine and its load."
        drawn.append(("curve-minutes", "Learning, by minutes", note, learning_curves(runs, looks, "minutes")))
    plots.mkdir(exist_ok=True)
    for name, _, _, svg in drawn:
        (plots / f"{name}-{found.footing or 'unknown'}.svg").write_text(svg, encoding="utf-8")
    return [Picture(title, note, _data_uri(svg.encode(), "svg+xml")) for _, title, note, svg in drawn]


def _errors(found: Group, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """What AP50 lacks by row: the gains of cures and the rest, means over its seeds; without rows that don't know."""
    labels = found.trials.set_index("run")["label"]
    known: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        if why := run.metrics.get("errors", {}).get("segm"):
            parts = {**why["gains"], "rest": why["rest"]}
            known.setdefault(labels[run.name], []).append({name: parts[name] for name in ERRORS})
    return {label: {part: mean(parts[part] for parts in seeds) for part in seeds[0]} for label, seeds in known.items()}


def _phases(found: Group, runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Milliseconds by phase, of the first seed of each row that was timed phase by phase where most were timed."""
    here = found.trials[~found.trials["timed_elsewhere"]]
    named = {run.name: run for run in runs}
    phases: dict[str, dict[str, float]] = {}
    for label, name in zip(here["label"], here["run"], strict=True):
        spent = named[name].speed.get("phases", {})
        if spent and set(spent) <= set(PHASES):
            phases.setdefault(label, spent)
    return phases


def _conditions(found: Group, runs: Sequence[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Speeds of the first seeds under other conditions than the table's: by conditions, by row."""
    speeds: dict[str, dict[str, dict[str, Any]]] = {}
    for label, run in _first_seeds(found, runs).items():
        for conditions, speed in run.speeds.items():
            speeds.setdefault(conditions, {})[label] = speed
    return dict(sorted(speeds.items()))


def _strata(found: Group, runs: Sequence[Run], by: str) -> Strata:
    """Means over the seeds of each row; None where there are no such objects."""
    known = {run.name: why[by] for run in runs if (why := run.metrics.get("strata", {}).get("segm"))}
    parts = {name: int(part["truths"]) for name, part in next(iter(known.values()), {}).items()}
    rows = {}
    for label in found.methods["label"]:
        seeds = [known[name] for name in found.trials.loc[found.trials["label"] == label, "run"] if name in known]
        if seeds:
            rows[label] = [
                mean(own[name]["AP"] for own in seeds) if objects else None for name, objects in parts.items()
            ]
    return Strata(by, parts, rows)


def _first_seeds(found: Group, runs: Sequence[Run]) -> dict[str, Run]:
    """The first run of each row, in the table's order."""
    named = {run.name: run for run in runs}
    first = found.trials.drop_duplicates("label").set_index("label")["run"]
    return {label: named[first[label]] for label in found.methods["label"]}


def _gallery(found: Group, runs: Sequence[Run]) -> Gallery:
    """The first photos, by the first seed of each row of the table."""
    shown = list(_first_seeds(found, runs).values())
    ids = sorted({image_id for run in shown for image_id in run.image_ids})[:PHOTOS]
    rows = []
    for image_id in ids:
        photo, truth = (_first(run.thumbnail(kind, image_id) for run in shown) for kind in ("photo", "truth"))
        paths = [photo, truth, *(run.thumbnail("pred", image_id) for run in shown)]
        rows.append((image_id, [_data_uri(path.read_bytes(), "png") if path else None for path in paths]))
    return Gallery(2 + len(shown), rows)


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
    names = sorted({name for section in sections for key in section.keys["footing"] for name in key.fields})
    for name in names:
        if len({str(section.value(name)) for section in sections}) > 1:
            for section in sections:
                section.apart[name] = section.value(name)


def _first(paths: Iterable[Path | None]) -> Path | None:
    return next((path for path in paths if path), None)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


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
        bounds=bounds,
        letters=letters,
        marks=marks,
        remarks=remarks,
        spread=spread,
    )
