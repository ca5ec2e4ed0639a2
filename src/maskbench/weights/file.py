"""A converted checkpoint as one file: the weights, and in its metadata what it takes to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskbench.atomic import replacing
from maskbench.errors import WeightsError
from maskbench.targets import is_network, reference, targets
from maskbench.weights.converting import Published

NOTE = "maskbench"
"""Key of the metadata."""

BODY_OPTIONS = {"layers", "channels", "cardinality", "base_width"}


def save(published: Published, path: Path) -> None:
    """Write the file, whole or not at all."""
    note = {name: value for name, value in asdict(published).items() if name != "weights"}
    with replacing(path) as part:
        weights = {name: value.contiguous() for name, value in published.weights.items()}
        save_file(weights, part, metadata={NOTE: json.dumps(note)})


def load(path: Path) -> Published:
    """What `save` wrote.

    Raises:
        WeightsError: there is no such file, it is damaged, or convert did not write it.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get(NOTE, "null"))
        weights = load_file(path)
    except Exception as error:  # safetensors raises errors of its own on whatever is no file of its
        raise WeightsError(
            f"{path}: not readable as converted weights ({type(error).__name__}: {error}); maskbench convert makes them"
        ) from error
    known = {field.name for field in fields(Published)} - {"weights"}
    if not isinstance(note, dict) or set(note) != known:
        raise WeightsError(f"{path}: holds weights without a note of what they are; maskbench convert writes one")
    _require_form(note, path)
    _require_ours(note, path)
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in note.items()}
    return Published(weights, **given)


def _require_form(note: Mapping[str, Any], path: Path) -> None:
    """Raise unless the entries of a note are of their kinds."""
    lists = {"classes": str, "category_ids": int, "left_out": str, "size": int}
    wrong = [name for name in ("backbone", "method") if not isinstance(note[name] or {}, dict)]
    for name, kind in lists.items():
        if not isinstance(note[name], list) or not all(isinstance(value, kind) for value in note[name]):
            wrong.append(name)
    if wrong or note["backbone"] is None or len(note["size"]) != 2 or len(note["classes"]) != len(note["category_ids"]):
        raise WeightsError(f"{path}: its note of what the weights are is damaged ({', '.join(wrong) or 'lengths'})")


def _require_ours(note: Mapping[str, Any], path: Path) -> None:
    """Raise unless all that a note would call is of our networks, by plain values: files come from strangers."""
    if (found := reference(note)) is not None:
        raise WeightsError(f"{path}: its note holds {found!r:.80}, which refers to something else, and is not used")
    for _, node in targets(note):
        if not isinstance(node["_target_"], str) or not is_network(node["_target_"]):
            raise WeightsError(
                f"{path}: its note names {node['_target_']}, which is no class of maskbench's networks, and is not used"
            )
    for node in (note["backbone"], *(each for _, each in targets(note))):
        options = node.get("options") or ()
        if unknown := sorted({str(name) for name in options} - BODY_OPTIONS):
            raise WeightsError(f"{path}: its note has the options {unknown}, expected {sorted(BODY_OPTIONS)}")
