"""Trained methods read at other input sizes, or at the thresholds of their papers: AP and speed of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_data, make_trainer
from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.progress import shown
from maskbench.runtime.quiet import hush
from maskbench.runtime.run_folder import RunFolder, read_json, require_same_data, write_json
from maskbench.runtime.timing import Conditions, at_point, measured, on_one, trained_together
from maskbench.runtime.tuning import SplitAP

CONDITIONS = ("device_name", "threads", "precision", "versions", "loaded")
"""Where a point was timed, as speed.json has it."""

PAPER = "paper"
"""The point at the thresholds of a method's paper; others are named by the short side of the input."""

Points = dict[str, dict[str, Any]]
"""By run its points by name."""


def read_at_sizes(runs: Sequence[Path], sizes: Sequence[Any], conditions: Conditions) -> Points:
    """Mask AP and speed of finished runs at several input sizes; the methods take turns at each.

    The same weights are read: training for a size would give more, and cost a training.

    Args:
        runs: the folders.
        sizes: short sides of the network input in pixels; a cap of the long side grows and shrinks with them.
        conditions: of the timing.

    Returns:
        By run, what its points.json holds: by short side AP, AP50, FPS and latency, and where it was timed.

    Raises:
        ConfigError: a size is none.
        RunError: the data have changed since a run was judged on them.
    """
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ConfigError(
            f"sizes={list(sizes)}: expected short sides of the network input in pixels, like [96,128,160]"
        )
    points: Points = {}
    for cfg, methods in _checked(runs):
        for size in sizes:
            points |= _measured(str(size), cfg, methods, build_data(_resized(cfg, size)), conditions)
    return points


def read_as_published(runs: Sequence[Path], conditions: Conditions) -> Points:
    """Mask AP and speed of finished runs at the thresholds of their papers, under `PAPER`; otherwise as above.

    How many instances of an image count stays the study's.
    """
    points: Points = {}
    for cfg, methods in _checked(runs):
        published = {
            run: at_point(method, replace(method.default_point, max_instances=method.point.max_instances))
            for run, method in methods.items()
        }
        points |= _measured(PAPER, cfg, published, build_data(cfg), conditions)
    return points


def _checked(runs: Sequence[Path]) -> Iterator[tuple[DictConfig, dict[RunFolder, Segmenter]]]:
    """As `trained_together`, on the data that the runs were judged on."""
    hush()
    for cfg, methods in trained_together(runs):
        data = build_data(cfg)
        for run in methods:
            require_same_data(run, data)
        yield cfg, methods


def _measured(
    name: str,
    cfg: DictConfig,
    methods: Mapping[RunFolder, Segmenter],
    data: CocoDataModule,
    conditions: Conditions,
) -> Points:
    """One point of each run, written to its points.json beside those that are there."""
    found = {run: _ap(cfg, method, data, conditions.device) for run, method in methods.items()}
    contenders = {run.path.name: method for run, method in methods.items()}
    speeds = measured(contenders, data, cfg.trainer.precision, conditions)
    points: Points = {}
    for run, method in methods.items():
        known = read_json(run.points) if run.points.exists() else {}
        known[name] = {
            "score_threshold": method.point.score_threshold,
            **{number: found[run][number] for number in ("AP", "AP50")},
            **{number: getattr(speeds[run.path.name], number) for number in ("fps", "latency_ms", *CONDITIONS)},
        }
        points[run.path.name] = dict(sorted(known.items(), key=lambda point: (len(point[0]), point[0])))
        write_json(run.points, points[run.path.name])
    return points


def _resized(cfg: DictConfig, size: int) -> DictConfig:
    changed = cfg.copy()
    before = changed.transforms.eval
    if before.long is not None and before.short is not None:
        before.long = round(before.long * size / before.short)
    before.short = size
    return changed


def _ap(cfg: DictConfig, method: Segmenter, data: CocoDataModule, device: torch.device) -> Mapping[str, float]:
    callback = SplitAP(data, "test", method.point.max_instances)
    settings = {"logger": False, "enable_checkpointing": False, **shown(callback)}
    trainer = make_trainer(on_one(device, cfg.trainer), **settings)
    with interruptible():
        trainer.predict(method, dataloaders=data.test_dataloader(), return_predictions=False)
    return callback.ap.compute()["segm"]
