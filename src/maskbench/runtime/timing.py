"""Latency of trained methods on the same test photos, taking turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from maskbench.data.coco import read_photo
from maskbench.data.datamodule import CocoDataModule, photo_batch
from maskbench.errors import ConfigError, RunError
from maskbench.evaluation.precision import precision_name
from maskbench.evaluation.speed import Speed, measure
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_data
from maskbench.runtime.published import with_data
from maskbench.runtime.run_folder import RunFolder, load_method, write_json
from maskbench.structures import Batch
from maskbench.sweep.status import FILE, Status


def first_photos(data: CocoDataModule, count: int) -> list[Batch]:
    """The first photos of test without their truth, each a batch of its own: not padded to its neighbours' size."""
    return [
        photo_batch(
            read_photo(data.image_path("test", image_id)), data.transforms, divisor=data.divisor, image_id=image_id
        )
        for image_id in data.image_ids("test")[:count]
    ]


def pick_device(name: str | None) -> torch.device:
    """The device of a name; a GPU where there is one when none is given.

    Raises:
        ConfigError: this machine has no such device.
    """
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    there = ["cpu", *(["cuda", *gpus] if gpus else []), *(["mps"] if torch.backends.mps.is_available() else [])]
    if name is not None and name not in there:
        raise ConfigError(f"device={name}: expected one of {', '.join(there)}, which is what this machine has")
    return torch.device(name or ("cuda" if gpus else "cpu"))


def time_runs(
    methods: Mapping[RunFolder, Segmenter],
    photos: Sequence[Batch],
    device: torch.device,
    precision: str | int,
    *,
    images: int,
    threads: int,
) -> dict[str, Speed]:
    """Time the methods of some runs in turns on `images` photos, and write each one's speed.json."""
    contenders = {run.path.name: method for run, method in methods.items()}
    speeds = measure(contenders, photos, device=device, precision=precision, images=images, threads=threads)
    for run in methods:
        write_json(run.speed, speeds[run.path.name].as_dict())
    return speeds


def finished_runs(study: Path) -> list[Path]:
    """Folders of the runs of a study that are done, by name.

    Raises:
        RunError: the folder holds none.
    """
    folders = sorted(file.parent for file in study.glob(f"*/{FILE}") if Status.finished(file.parent))
    if not folders:
        raise RunError(f"{study}: no finished run in it (expected runs/STUDY with METHOD-seedS-HASH folders)")
    return folders


def time_together(runs: Sequence[Path], device: torch.device, *, images: int, threads: int) -> dict[str, Speed]:
    """Time finished runs in one process; those that see the same photos at the same precision take turns.

    Returns:
        Speed by the name of the run's folder; each run's speed.json is written.
    """
    groups: dict[str, list[Path]] = {}
    for path in runs:
        groups.setdefault(_setting(RunFolder.existing(path).read_config()), []).append(path)
    speeds: dict[str, Speed] = {}
    for together in groups.values():
        trained = {RunFolder(path): load_method(path) for path in together}
        cfg = next(iter(trained.values())).cfg
        methods = {run: each.method for run, each in trained.items()}
        photos = first_photos(build_data(cfg), images)
        speeds |= time_runs(methods, photos, device, cfg.trainer.precision, images=images, threads=threads)
    return speeds


def time_weights(weights: str, cfg: DictConfig, device: torch.device, *, images: int, threads: int) -> dict[str, Speed]:
    """Time converted weights on the test photos of `cfg.data`; speed by the name of the file."""
    trained, data = with_data(weights, cfg)
    photos = first_photos(data, images)
    precision = trained.cfg.trainer.precision
    named = {Path(weights).name: trained.method}
    return measure(named, photos, device=device, precision=precision, images=images, threads=threads)


def _setting(cfg: DictConfig) -> str:
    """What runs must share to be timed on the same photos."""
    precision = precision_name(cfg.trainer.precision)
    shared = [OmegaConf.to_container(cfg.data), OmegaConf.to_container(cfg.transforms), precision]
    return json.dumps(shared, sort_keys=True)
