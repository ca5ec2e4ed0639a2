"""Latency of trained methods on the same test photos, taking turns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from maskbench.data.datamodule import CocoDataModule, photo_batch
from maskbench.data.photos import read_photo
from maskbench.errors import ConfigError, MaskbenchError, RunError, WeightsError
from maskbench.evaluation.execution import require_execution
from maskbench.evaluation.precision import precision_name
from maskbench.evaluation.speed import Speed, measure
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_data
from maskbench.runtime.console import complain
from maskbench.runtime.published import with_data
from maskbench.runtime.run_folder import RunFolder, load_method, read_json, write_json
from maskbench.structures import Batch, OperatingPoint
from maskbench.sweep.status import FILE, Status


@dataclass(frozen=True)
class Conditions:
    """Under which runs are timed.

    Args:
        device: where.
        images: of the test split.
        threads: of the host.
        batch: images that are predicted together.
        execution: how networks are run, one of `execution.EXECUTIONS`.
        precision: of all runs (None: each at that which it was trained in).

    Raises:
        ConfigError: there is no such execution or precision, none on this device, or a batch of nothing.
    """

    device: torch.device
    images: int = 50
    threads: int = 1
    batch: int = 1
    execution: str = "eager"
    precision: str | int | None = None

    def __post_init__(self) -> None:
        require_execution(self.execution, self.device)
        if self.precision is not None:
            precision_name(self.precision)
        for name in ("batch", "images", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")

    @property
    def usual(self) -> bool:
        """Whether they are those of the leaderboard, in which every run is timed at its own precision."""
        return self.batch == 1 and self.execution == "eager" and self.precision is None


def first_photos(data: CocoDataModule, count: int, batch: int = 1) -> list[Batch]:
    """The first photos of test without their truth, `batch` at a time; one alone is not padded to others' size.

    Raises:
        ConfigError: there are too few for a batch.
    """
    ids = data.image_ids("test")[:count]
    if not ids:
        raise ConfigError(f"no photo of test can be timed: there are {len(data.image_ids('test'))}, and images={count}")
    if not 1 <= batch <= len(ids):
        raise ConfigError(
            f"batch={batch}: expected 1 to {len(ids)}, the photos of test that are timed (images={count})"
        )
    whole = len(ids) - len(ids) % batch  # what is left over would be another batch size
    return [
        photo_batch(
            {image_id: read_photo(data.image_path("test", image_id)) for image_id in ids[start : start + batch]},
            data.transforms,
            divisor=data.divisor,
        )
        for start in range(0, whole, batch)
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


def on_one(device: torch.device, trainer: DictConfig) -> DictConfig:
    """The settings of a trainer for this one device, however many of whatever kind it has had."""
    index = device.index if device.type == "cuda" else None
    own = {"accelerator": device.type, "devices": 1 if index is None else [index], "strategy": "auto", "num_nodes": 1}
    moved = OmegaConf.merge(trainer, own)
    assert isinstance(moved, DictConfig)
    return moved


def time_runs(
    methods: Mapping[RunFolder, Segmenter], data: CocoDataModule, precision: str | int, conditions: Conditions
) -> dict[str, Speed]:
    """Time the methods of some runs in turns on the first photos of test.

    The leaderboard's conditions go into each run's speed.json, with the speed at its deployment point; others beside
    each other into its speeds.json.

    Returns:
        Speed by the name of the run's folder, at the lowest threshold.
    """
    contenders = {run.path.name: method for run, method in methods.items()}
    if not conditions.usual:
        speeds = measured(contenders, data, precision, conditions)
        for run in methods:
            found, known = speeds[run.path.name], read_json(run.speeds) if run.speeds.exists() else {}
            write_json(run.speeds, known | {found.label: found.as_dict()})
        return speeds
    deployed = {run: at for run, method in methods.items() if (at := _at_deployment_point(run, method))}
    names = {run: f"{run.path.name}, deployed" for run in deployed}
    together = contenders | {names[run]: method for run, method in deployed.items()}
    speeds = measured(together, data, precision, conditions)
    for run in methods:
        point = {"deployment": speeds.pop(names[run]).as_dict()} if run in names else {}
        write_json(run.speed, speeds[run.path.name].as_dict() | point)
    return speeds


def _at_deployment_point(run: RunFolder, method: Segmenter) -> Segmenter | None:
    """The same weights read at the run's deployment point; None where it has none."""
    chosen = read_json(run.metrics).get("deployment") if run.metrics.exists() else None
    if not chosen:
        return None
    threshold = max(method.point.score_threshold, min(chosen["threshold"], 1 - 1e-7))
    return at_point(method, replace(method.point, score_threshold=threshold, final_threshold=threshold))


def at_point(method: Segmenter, point: OperatingPoint) -> Segmenter:
    """The same weights, read at another operating point: both share their modules."""
    same = copy(method)
    same.point = point
    return same


def measured(
    contenders: Mapping[str, Segmenter], data: CocoDataModule, precision: str | int, conditions: Conditions
) -> dict[str, Speed]:
    """Speed of methods that take turns on the first photos of test; nothing is written."""
    batches = first_photos(data, conditions.images, conditions.batch)
    return measure(
        contenders,
        batches,
        device=conditions.device,
        precision=conditions.precision or precision,
        execution=conditions.execution,
        threads=conditions.threads,
        images=conditions.images,
    )


def finished_runs(study: Path) -> list[Path]:
    """Folders of the runs of a study that are done, by name.

    Raises:
        RunError: the folder holds none.
    """
    folders = sorted(file.parent for file in study.glob(f"*/{FILE}") if Status.finished(file.parent))
    if not folders:
        raise RunError(f"{study}: no finished run in it (expected runs/STUDY with METHOD-seedS-HASH folders)")
    return folders


def time_together(runs: Sequence[Path], conditions: Conditions) -> dict[str, Speed]:
    """Time finished runs in one process; those that see the same photos at the same precision take turns.

    Returns:
        Speed by the name of the run's folder; each run's files are written.
    """
    speeds: dict[str, Speed] = {}
    for cfg, methods in trained_together(runs):
        speeds |= time_runs(methods, build_data(cfg), cfg.trainer.precision, conditions)
    return speeds


def trained_together(runs: Sequence[Path]) -> Iterator[tuple[DictConfig, dict[RunFolder, Segmenter]]]:
    """The trained methods of runs that see the same photos at the same precision, with the config of one of them.

    Of several runs those that can't be read are told of and left out.

    Raises:
        RunError, WeightsError: none of them can be read.
    """
    groups: dict[str, list[Path]] = {}
    failed: list[MaskbenchError] = []
    for path in runs:
        with _noted(failed):
            groups.setdefault(_setting(RunFolder.existing(path).read_config()), []).append(path)
    for together in groups.values():
        trained = {}
        for path in together:
            with _noted(failed):
                trained[RunFolder(path)] = load_method(path)
        if trained:
            yield next(iter(trained.values())).cfg, {run: each.method for run, each in trained.items()}
    if len(failed) == len(runs):
        raise failed[0]
    for error in failed:
        complain(f"left out: {error}")


@contextmanager
def _noted(failed: list[MaskbenchError]) -> Iterator[None]:
    """What makes a run unreadable is kept for the end."""
    try:
        yield
    except (RunError, WeightsError) as error:
        failed.append(error)


def time_weights(weights: str, cfg: DictConfig, conditions: Conditions) -> dict[str, Speed]:
    """Time converted weights on the test photos of `cfg.data`; speed by the name of the file."""
    trained, data = with_data(weights, cfg)
    return measured({Path(weights).name: trained.method}, data, trained.cfg.trainer.precision, conditions)


def _setting(cfg: DictConfig) -> str:
    """What runs must share to be timed on the same photos."""
    precision = precision_name(cfg.trainer.precision)
    data = {name: value for name, value in cfg.data.items() if name != "unreadable"}  # which is of training
    shared = [OmegaConf.to_container(OmegaConf.create(data)), OmegaConf.to_container(cfg.transforms), precision]
    return json.dumps(shared, sort_keys=True)
