"""What a file may call: the `_target_` lines of a config that was read back, not composed on a command line.

Whoever composes a config names whatever they like, and means it. A run folder or converted weights may come from
anybody: what they name is called only where it is a method of maskbench, a part of one, or what its own configs take
from other packages. Names are compared as they are written, so that nothing of theirs is imported to be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TRUSTED = "MASKBENCH_TRUSTED"
"""The variable that names packages of others whose methods files may name, with commas between them."""

NETWORKS = re.compile(r"(maskbench\.(?:methods|nn|ops)\.[a-z]\w*)\.([A-Za-z]\w*)")
"""Rooms of which a file may name every class and function: they have neither files nor processes."""

ONES = frozenset(
    {
        "lightning.Trainer",
        "maskbench.data.datamodule.CocoDataModule",
        "maskbench.data.shapes.draw",
        "maskbench.data.transforms.Eval",
        "maskbench.data.transforms.Train",
        "maskbench.data.transforms.Transforms",
        "maskbench.structures.OperatingPoint",
    }
)
CLASSES = re.compile(r"(?:albumentations|torch\.optim)\.[A-Z]\w*")
"""Transforms and optimisers: all that these two call by a capital letter."""
SETTINGS = {
    "wandb.init": frozenset({"entity", "mode", "notes", "project", "save_code", "settings", "tags"}),
    "wandb.Settings": frozenset(
        {"console", "disable_code", "disable_git", "init_timeout", "quiet", "save_code", "silent"}
    ),
}
"""What may be called with these settings alone: others say where a login is sent."""


def targets(settings: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The nodes of plain settings that name what to call, each with its dotted path, those in lists included."""
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            yield path, settings
        for name, value in settings.items():
            yield from targets(value, f"{path}.{name}" if path else str(name))
    elif isinstance(settings, list | tuple):
        for place, value in enumerate(settings):
            yield from targets(value, f"{path}[{place}]")


def refusal(settings: Any) -> str | None:
    """Why settings that were read back are not called, and how to say that they may be; None where they may."""
    for path, node in targets(settings):
        target, where = str(node["_target_"]), f"{path}._target_" if path else "_target_"
        if isinstance(node["_target_"], str) and (_allowed(node) or _trusted(target)):
            continue
        return (
            f"{where}={target}{_with(node, target)} would run what is no part of maskbench, as whoever made the file "
            f"wants it. If you trust them, say so before the command: {TRUSTED}={target.partition('.')[0]} (or A,B)"
        )
    return None


def reference(settings: Any) -> str | None:
    """The first value, or name, of plain settings that OmegaConf would look up; None where there is none.

    It may be another setting, but also an environment variable, or what a function makes of it.
    """
    if isinstance(settings, str):
        return settings if "${" in settings else None
    if isinstance(settings, Mapping):
        settings = [*settings, *settings.values()]
    if not isinstance(settings, list | tuple):
        return None
    return next((found for value in settings if (found := reference(value)) is not None), None)


def _allowed(node: Mapping[str, Any]) -> bool:
    target = node["_target_"]
    if target in SETTINGS:
        return all(name.startswith("_") or name in SETTINGS[target] for name in node)
    return target in ONES or bool(CLASSES.fullmatch(target)) or is_network(target)


def _with(node: Mapping[str, Any], target: str) -> str:
    """The settings that are too many where what is called is known."""
    known = SETTINGS.get(target)
    extra = [name for name in node if known and not name.startswith("_") and name not in known]
    return f" with {', '.join(extra)}" if extra else ""


def is_network(target: str) -> bool:
    """Whether it is a class or function of our networks, written in the module by which it is named."""
    found = NETWORKS.fullmatch(target)
    if found is None or (spec := find_spec(found[1])) is None or spec.origin is None:
        return False
    source = Path(spec.origin).read_text(encoding="utf-8")
    return re.search(rf"^(?:class|def) {found[2]}\b", source, re.MULTILINE) is not None


def _trusted(target: str) -> bool:
    """Whether it is of a package that the user named, or a child of one."""
    named = [word.strip() for word in os.environ.get(TRUSTED, "").split(",") if word.strip()]
    return any(target.startswith(f"{package}.") for package in named)
