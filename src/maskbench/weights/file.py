"""A converted checkpoint as one file: the weights, and in its metadata what it takes to use them."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from maskbench.atomic import replacing
from maskbench.errors import WeightsError
from maskbench.weights.converting import Published

NOTE = "maskbench"
"""Key of the metadata."""

OURS = re.compile(r"(maskbench\.(?:methods|nn|ops)\.\w+)\.(\w+)")
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
    _require_ours(note["method"] or {}, path)
    _require_ours(note["backbone"], path)
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in note.items()}
    return Published(weights, **given)


def _require_ours(node: Mapping[str, Any], path: Path) -> None:
    """Raise unless all that a config node would call is a class of ours: files come from strangers."""
    target = node.get("_target_")
    if target is not None and not _is_ours(str(target)):
        raise WeightsError(
            f"{path}: its note names {target}, which is no class of maskbench's networks, and is not used"
        )
    if unknown := node.get("options", {}).keys() - BODY_OPTIONS:
        raise WeightsError(f"{path}: its note has the options {sorted(unknown)}, expected {sorted(BODY_OPTIONS)}")
    for value in node.values():
        if isinstance(value, Mapping):
            _require_ours(value, path)


def _is_ours(target: str) -> bool:
    """A class that is written in the module it is named by, and not one that the module imports."""
    found = OURS.fullmatch(target)
    if found is None or importlib.util.find_spec(found[1]) is None:
        return False
    kind = getattr(importlib.import_module(found[1]), found[2], None)
    return isinstance(kind, type) and kind.__module__ == found[1]
