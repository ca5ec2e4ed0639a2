"""Where other packages have their configs: what Hydra's words `hydra.searchpath` and `--config-dir` name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from maskbench.errors import ConfigError

PACKAGE = "pkg://"
SEARCHPATH = "hydra.searchpath"
FOLDER = ("--config-dir", "-cd")


def searched(words: Sequence[str]) -> list[Path]:
    """The folders of configs that a command line names beside ours.

    Raises:
        ConfigError: one of them is not there, of which Hydra only warns.
    """
    return [folder_of(place) for place in (*_config_dirs(words), *_searchpath(words))]


def folder_of(place: str) -> Path:
    """The folder of configs that a place names, as `hydra.searchpath` has it: pkg://paper.conf, file://PATH or PATH.

    Raises:
        ConfigError: there is none.
    """
    if place.startswith(PACKAGE):
        return _of_package(place)
    folder = Path(place.removeprefix("file://"))
    if not folder.is_dir():
        raise ConfigError(f"{place}: there is no such folder of configs")
    return folder


def _of_package(place: str) -> Path:
    name = place.removeprefix(PACKAGE).replace("/", ".").strip(".")
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # one above it is not there
        spec = None
    if spec is None:
        raise ConfigError(
            f"{place}: {sys.executable} knows no package {name}. Install it there (pip install -e FOLDER), or name the "
            "folder that it lies in by PYTHONPATH."
        )
    folder = Path(next(iter(spec.submodule_search_locations or ()), ""))
    if not (folder / "__init__.py").is_file():
        raise ConfigError(f"{place}: {folder} has no __init__.py, and without one Hydra finds no configs in a package")
    return folder


def _config_dirs(words: Sequence[str]) -> list[str]:
    joined = [word.partition("=")[2] for word in words if word.startswith(f"{FOLDER[0]}=")]
    return joined + [place for word, place in pairwise(words) if word in FOLDER]


def _searchpath(words: Sequence[str]) -> list[str]:
    """Nothing where the word can't be read: Hydra is going to tell of it."""
    given = [word for word in words if word.startswith(f"{SEARCHPATH}=")]
    try:
        values = [OverridesParser.create().parse_override(word).value() for word in given]
    except HydraException:
        return []
    return [place for value in values if isinstance(value, list) for place in value if isinstance(place, str)]
