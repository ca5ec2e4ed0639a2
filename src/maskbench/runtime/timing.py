"""Latency of trained methods on the same test photos, taking turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.speed import Speed, measure
from maskbench.methods.base import Segmenter
from maskbench.runtime.run_folder import RunFolder, write_json
from maskbench.structures import Batch


def first_photos(data: CocoDataModule, count: int) -> list[Batch]:
    """The first photos of test, each a batch of its own: padded to its own stride, not to its neighbours' size."""
    dataset = data.dataset("test")
    return [data.collate([dataset[index]]) for index in range(min(count, len(dataset)))]


def pick_device(name: str | None) -> torch.device:
    """The device of a name; a GPU where there is one when none is given."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def time_runs(
    methods: Mapping[RunFolder, Segmenter],
    photos: Sequence[Batch],
    device: torch.device,
    precision: str,
    threads: int,
) -> dict[str, Speed]:
    """Time the methods of some runs in turns, and write each one's speed.json."""
    contenders = {run.path.name: method for run, method in methods.items()}
    speeds = measure(contenders, photos, device=device, precision=precision, threads=threads)
    for run in methods:
        write_json(run.speed, speeds[run.path.name].as_dict())
    return speeds
