"""The settings of a run: plain values, as they are written once everything is composed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskbench.errors import RunError
from maskbench.targets import reference

LOADER: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
"""The one in C is where PyYAML was built with it."""
# as whoever edits a file means it, and OmegaConf has it; to YAML 1.1 a number without a point is text
LOADER.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def settings(folder: Path) -> dict[str, Any]:
    """The plain values of config.yaml, empty where there is none: read thirteen times as fast as an OmegaConf.

    Raises:
        RunError: the file can't be read, or holds what no run writes.
    """
    path = folder / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_aliases(path, text)
        found = yaml.load(text, Loader=LOADER)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, dict):
        return {}
    if (referring := reference(found)) is not None:
        raise RunError(
            f"{path}: holds {referring!r:.80}, which refers to something else, expected plain values, as a run writes "
            "them; write out what it stands for"
        )
    return found


def config(folder: Path) -> DictConfig:
    """The same as an OmegaConf, for whoever makes something of it.

    Raises:
        RunError: as `settings`, or it holds what no config can.
    """
    try:
        return OmegaConf.create(settings(folder))
    except (ValueError, RecursionError, OmegaConfBaseException) as error:
        raise _unreadable(folder / "config.yaml", error) from error


def _unreadable(path: Path, error: Exception) -> RunError:
    return RunError(f"{path}: not readable as a config ({error}); move the run away and train it again")


def _refuse_aliases(path: Path, text: str) -> None:
    """Raise for a value that is said to be another one: a few lines of such are gigabytes."""
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=LOADER)):
        raise RunError(f"{path}: has aliases (*NAME), expected plain values, as a run writes them; write them out")
