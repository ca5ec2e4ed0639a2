"""The look at a data set before a training: once for the same data, whatever number of trials is to run on them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maskbench.data.cache import cache_folder, recall
from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.survey import VERSION, survey
from maskbench.errors import ConfigError, DataError
from maskbench.runtime.console import complain, say
from maskbench.runtime.preflight_page import NUMBERS, PAGE, listed, write
from maskbench.runtime.ranks import leads
from maskbench.runtime.trial import Composed, data_root, identify, located
from maskbench.sweep.status import Status

MODES = ("fail", "warn", "off")
"""What errors do to a training: they stop it, are told, or nobody looks for them."""


def identify_checked(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> Composed:
    """As `identify`, of a trial whose data were looked through, unless it is done already.

    Raises:
        DataError: the data have errors, and `preflight=fail`: all of them are told, with the page that shows them.
        ConfigError: `preflight` is no mode.
    """
    mode = _mode(cfg.preflight)
    try:
        trial = identify(cfg, choices, overrides)
    except DataError:
        # which is the first thing that is wrong; and without a fingerprint nothing can be remembered
        if _comes_from_a_folder(cfg) and data_root(cfg.data).is_dir():
            _require(cfg, None, mode)
        raise
    if _comes_from_a_folder(cfg) and not Status.finished(trial.folder):
        _require(trial.cfg, trial.fingerprint, mode)
    return trial


def layout(cfg: DictConfig) -> Layout:
    """What a config names: the data and what they are for.

    Args:
        cfg: with `data`, and `transforms` and `evaluation` as a training has them.

    Raises:
        ConfigError, DataError: as in `located`.
    """
    root, places, _ = located(cfg.data)
    # what is set apart of the training file for testing is looked at with it
    named = {"train": places.train, "tune": places.tune, "test": None if places.test_share else places.test}
    splits = [Split(name, place.annotations, place.images) for name, place in named.items() if place is not None]
    sides = {name: OmegaConf.select(cfg, f"transforms.eval.{name}") for name in ("short", "long")}
    most = OmegaConf.select(cfg, "evaluation.point.max_instances", default=Layout.max_instances)
    skip = cfg.data.get("unreadable") == "skip"
    return Layout(root.absolute(), tuple(splits), cfg.data.train_semantic, **sides, max_instances=most, skip=skip)


def known(plan: Layout, content: str) -> Path:
    """The folder in the cache of what was found in data of that fingerprint, looked at for the same purpose."""
    asked = {**asdict(plan), "root": None, "content": content, "version": VERSION}
    return cache_folder() / "preflight" / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _mode(setting: Any) -> str:
    mode = "off" if setting is False else setting  # which is what YAML makes of it
    if mode not in MODES:
        raise ConfigError(f"preflight={setting}: expected {', '.join(MODES)}")
    return str(mode)


def _comes_from_a_folder(cfg: DictConfig) -> bool:
    """Not of what maskbench has drawn itself."""
    return isinstance(cfg.data.root, str)


def _require(cfg: DictConfig, content: str | None, mode: str) -> None:
    """Tell what is wrong with the data of a training, and raise if it must not be.

    Args:
        cfg: of the training.
        content: the data's fingerprint; None where they can't be read to the end, and nothing can be trained.
        mode: one of `MODES`.
    """
    if mode != "off" and leads():
        _tell(layout(cfg), content, mode)


@cache  # a sweep asks for each of its trials
def _tell(plan: Layout, content: str | None, mode: str) -> None:
    found, page = _found(plan, content)
    shown = f"{page} shows them" if page else "python -m maskbench.preflight shows them"
    errors, warnings = listed(found, "error"), listed(found, "warning")
    if errors:
        text = "\n  ".join([f"{plan.root}: the data have errors", *errors])
        if mode == "fail":
            hint = "; preflight=warn trains all the same" if content else ""
            raise DataError(f"{text}\n{shown}{hint}")
        complain(f"{text}\n{shown}")
    if warnings:
        text = "\n  ".join([f"{plan.root}: the data have warnings", *warnings])
        say(f"{text}\n{shown}")


def _found(plan: Layout, content: str | None) -> tuple[dict[str, Any], Path | None]:
    """The content of preflight.json, from the cache if the same data were looked at before, and the page."""
    folder = known(plan, content or f"unknown, of {plan.root}")
    before = recall(folder / NUMBERS) if content else None
    if isinstance(before, dict) and (folder / PAGE).is_file():
        return before, folder / PAGE
    say(f"Looking through {plan.root} before training on it (preflight=off leaves that out)")
    looked = survey(plan)
    page = None
    with contextlib.suppress(OSError):  # a cache that can't be written costs the page, never the training
        page = write(looked, folder)
    return looked.as_dict(), page
