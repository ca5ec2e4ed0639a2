"""A converted checkpoint as one file: the weights, and in its metadata what it takes to use them."""

from __future__ import annotations

import json
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
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in note.items()}
    return Published(weights, **given)
