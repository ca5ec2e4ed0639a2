"""The page of a preflight: what was found, the worst first, with pictures of the suspicious ones; one file alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from maskbench.atomic import replace_text
from maskbench.data.preflight.findings import Finding, Group
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.pictures import pictures
from maskbench.data.preflight.survey import Survey
from maskbench.data.preflight.tally import QUANTILES

EACH = 6
"""Findings of a kind that are shown as pictures."""

MEANINGS = {
    "error": "A training would stop, or what it learns or what is measured would be wrong.",
    "warning": "Look at these: mostly something went wrong, but it may be meant.",
    "note": "Good to know; nothing has to be done.",
}

PAGE, NUMBERS = "index.html", "preflight.json"
"""The files of a preflight."""


def write(found: Survey, folder: Path) -> Path:
    """Write `preflight.json` and the page into a folder.

    Returns:
        The page.
    """
    replace_text(folder / PAGE, _render(found))
    replace_text(folder / NUMBERS, json.dumps(found.as_dict(), indent=1) + "\n")  # last: who finds it finds both
    return folder / PAGE


def _render(found: Survey) -> str:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("maskbench.runtime"), PackageLoader("maskbench.study")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    splits = {name: tally.as_dict() for name, tally in found.tallies.items()}
    shots = {group.kind.name: _shots(group) for group in found.groups}
    return environment.get_template("preflight.html.j2").render(
        name=found.layout.root.name,
        root=str(found.layout.root),
        finding=verdict(found.as_dict()["counts"]),
        purpose=_purpose(found.layout),
        splits=splits,
        classes=list(dict.fromkeys(name for tally in splits.values() for name in tally["classes"])),
        quantiles=QUANTILES,
        groups=found.groups,
        meanings=MEANINGS,
        shots=shots,
        outlined=any(finding.sight.annotations for own in shots.values() for finding, _ in own if finding.sight),
    )


def verdict(counts: dict[str, int]) -> str:
    """All in a sentence.

    Args:
        counts: findings by severity.
    """
    errors, warnings, notes = (_counted(counts[name], name) for name in ("error", "warning", "note"))
    if counts["error"]:
        return f"Not fit for a training as it is: {errors}, {warnings} and {notes}."
    if counts["warning"]:
        return f"Fit for a training, with {warnings} to look at first and {notes}."
    return f"Fit for a training: no errors, no warnings and {notes}."


def _counted(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"


def _purpose(layout: Layout) -> str:
    sides = "photos as large as they are" if layout.short is None else f"a short side of {layout.short} px"
    sides += "" if layout.long is None else f", a long one of at most {layout.long}"
    return f"{sides}; at most {layout.max_instances} objects a photo"


def _shots(group: Group) -> list[tuple[Finding, list[str]]]:
    """The first findings that can be shown, with their pictures as data URIs."""
    shots: list[tuple[Finding, list[str]]] = []
    for finding in group.examples:
        if finding.sight and len(shots) < EACH and (seen := pictures(finding.sight)):
            shots.append((finding, [f"data:image/jpeg;base64,{base64.b64encode(each).decode()}" for each in seen]))
    return shots


def listed(found: dict[str, Any], severity: str) -> list[str]:
    """A line for each kind of that severity: its name, how many there are, the first of them and the remedy.

    Args:
        found: the content of `preflight.json`.
        severity: error, warning or note.
    """
    lines = []
    for group in found["findings"]:
        if group["severity"] == severity:
            first = group["examples"][0]
            where = f"{first['file']} ({first['id']})" if first["id"] else first["file"]
            more = f" × {group['count']}" if group["count"] > 1 else ""
            lines.append(f"{group['kind']}{more}: {where}: {first['found']}; {group['remedy']}")
    return lines
