"""How long and at what learning rate a method is trained, by the protocol of the comparison.

The budget is equal for all methods in images, in floating point operations or in minutes; what an epoch of a method
costs is measured on its first batches, on a copy. Where a protocol has several learning rates, each is tried for a
share of the budget, annealed to its own end, and AP on the tune split chooses. Every method gets the same small budget
for that, and the plan says what it found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice, repeat
from statistics import mean, median

import torch
from omegaconf import DictConfig, OmegaConf

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError
from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.cost import count_flops
from maskbench.evaluation.precision import precision_name
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method, make_trainer
from maskbench.runtime.console import say
from maskbench.runtime.draws import Draws
from maskbench.runtime.heartbeat import Heartbeat
from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.published import begin
from maskbench.runtime.ranks import leads
from maskbench.runtime.run_folder import RunFolder, read_json, write_json
from maskbench.runtime.timing import pick_device
from maskbench.runtime.trial import planned_epochs
from maskbench.runtime.tuning import TuneAP
from maskbench.structures import Batch

PROBES, WARM_UP = 6, 2
"""Batches that tell what an image costs, and steps before the clock counts."""


@dataclass(frozen=True)
class Plan:
    """What a protocol means for one method.

    Attributes:
        protocol: its name.
        epochs: of training; None where the trainer is told otherwise how long (`max_steps`).
        lr_factor: on the learning rate.
        cost: what one image costs in training, in the budget's unit (`tflops` or `minutes`); empty where images are it.
        spent: what the epochs cost by that, which whole epochs bring near to the budget.
        tried: AP on tune by factor, of those that were tried.
        tuning_epochs: how long each was tried.
    """

    protocol: str
    epochs: int | None
    lr_factor: float = 1.0
    cost: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)
    tuning_epochs: int = 0

    def applied(self, cfg: DictConfig) -> DictConfig:
        """The config with the plan's length and learning rate."""
        return _changed(cfg, self.epochs, self.lr_factor)


def make_plan(cfg: DictConfig, data: CocoDataModule, method: Segmenter, run: RunFolder) -> Plan:
    """The plan of a run: as its folder has it, or measured, tried and written there.

    Args:
        cfg: the composed config.
        data: the data set.
        method: as it starts; it stays as it is.
        run: the run folder.

    Raises:
        ConfigError: the protocol makes no sense, or its budget is less than half an epoch.
    """
    require_budget(cfg.protocol, cfg.trainer)
    if len(cfg.protocol.lr_factors) > 1 and not data.objects("tune"):
        raise ConfigError(
            f"protocol.lr_factors={list(cfg.protocol.lr_factors)} are chosen by AP on tune, but it has no object: set "
            "data.tune_share above 0 or data.tune_annotations, or take one factor"
        )
    plan = Plan(**read_json(run.plan)) if run.plan.exists() else _measured(cfg, data, method)
    factors = [float(factor) for factor in cfg.protocol.lr_factors]
    for factor in factors if len(factors) > 1 else ():
        if str(factor) not in plan.tried:
            ap = _tune_ap(_changed(cfg, plan.tuning_epochs, factor), data, run)
            say(f"{run.path.name}: learning rate × {factor:g} has an AP of {100 * ap:.1f} on tune")
            plan = replace(plan, tried={**plan.tried, str(factor): ap})
            _write(run, plan)
    plan = replace(plan, lr_factor=max(factors, key=lambda factor: plan.tried.get(str(factor), 0.0)))
    _write(run, plan)
    return plan


def _write(run: RunFolder, plan: Plan) -> None:
    if leads():
        write_json(run.plan, asdict(plan))


def require_budget(protocol: DictConfig, trainer: DictConfig) -> None:
    """Raise `ConfigError` where a protocol makes no sense, or none with this trainer."""
    budget = {unit: protocol[unit] for unit in ("tflops", "minutes") if protocol[unit] is not None}
    for name in ("share", "tuning_share"):
        if not 0 < protocol[name] <= 1:
            raise ConfigError(f"protocol.{name}={protocol[name]}: expected a share of the budget, above 0, at most 1")
    if not protocol.lr_factors or any(factor <= 0 for factor in protocol.lr_factors):
        raise ConfigError(f"protocol.lr_factors={list(protocol.lr_factors)}: expected one or more factors above 0")
    owed = {"equal_compute": "tflops", "equal_time": "minutes"}.get(protocol.name)
    if owed and protocol[owed] is None:
        raise ConfigError(f"protocol={protocol.name} needs its budget: set protocol.{owed}")
    if len(budget) > 1:
        raise ConfigError("protocol.tflops and protocol.minutes are two budgets: set one of them")
    planned = bool(budget) or protocol.share != 1 or len(protocol.lr_factors) > 1
    if planned and ((trainer.get("max_steps") or -1) > 0 or not (budget or (trainer.get("max_epochs") or 0) > 0)):
        raise ConfigError(
            f"protocol={protocol.name} plans in epochs, but trainer.max_epochs={trainer.get('max_epochs')} and "
            f"trainer.max_steps={trainer.get('max_steps')}: set max_epochs alone"
        )
    if budget and (_devices(trainer) != 1 or (trainer.get("num_nodes") or 1) != 1):
        raise ConfigError(
            f"protocol={protocol.name} tells the cost of an image on one device; trainer.devices={trainer.devices}"
        )


def _devices(trainer: DictConfig) -> int:
    """How many are asked for, of those that a setting can say by number."""
    devices = trainer.devices
    if OmegaConf.is_list(devices):
        return len(devices)
    return int(devices) if str(devices).isdigit() else -1


def _device(trainer: DictConfig) -> torch.device:
    if trainer.accelerator == "cpu":
        return torch.device("cpu")
    chosen = pick_device(None)
    listed = OmegaConf.is_list(trainer.devices) and chosen.type == "cuda"
    return torch.device("cuda", trainer.devices[0]) if listed else chosen


def _measured(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> Plan:
    protocol, images = cfg.protocol, len(data.image_ids("train"))
    if protocol.tflops is not None:
        unit, budget, cost = "tflops", protocol.tflops, _flops(cfg, data, method) / 1e12
    elif protocol.minutes is not None:
        unit, budget, cost = "minutes", protocol.minutes, _seconds(cfg, data, method) / 60
    else:
        planned = planned_epochs(cfg)
        return Plan(protocol.name, planned, tuning_epochs=max(1, round(protocol.tuning_share * (planned or 1))))
    epochs = protocol.share * budget / (cost * images)
    if epochs < 0.5:
        raise ConfigError(
            f"protocol.{unit}={budget} × share {protocol.share}: one epoch of this method takes {cost * images:.3g}, "
            "and one is the least that can be trained"
        )
    whole, tuning = max(1, round(epochs)), max(1, round(protocol.tuning_share * epochs))
    spent = {unit: whole * cost * images}
    return Plan(protocol.name, whole, cost={unit: cost}, spent=spent, tuning_epochs=tuning)


def _flops(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> float:
    """Floating point operations of the convolutions and products of a training step, by image."""
    with _steps(cfg, data, method) as steps:
        return mean(count_flops(step) / images for step, images in islice(steps, PROBES))


def _seconds(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> float:
    """Seconds of a training step by image, loading included."""
    costs = []
    last = time.perf_counter()
    with _steps(cfg, data, method) as steps:
        for step, images in islice(steps, WARM_UP + PROBES):
            step()
            now = time.perf_counter()
            costs.append((now - last) / images)
            last = now
    return median(costs[WARM_UP:])


@contextmanager
def _steps(
    cfg: DictConfig, data: CocoDataModule, method: Segmenter
) -> Iterator[Iterator[tuple[Callable[[], None], int]]]:
    """Training steps of a copy of the method, with the images of each, where and as precisely as it will be trained."""
    device = _device(cfg.trainer)
    copied = deepcopy(method).to(device).train()
    optimizer = copied.optim(copied, 1000)["optimizer"]
    precision = precision_name(cfg.trainer.precision)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        with autocast(device, precision):
            total = torch.stack(list(copied.loss(batch).values())).sum()
        total.backward()
        optimizer.step()
        total.item()  # a device is waited for

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        batches = chain.from_iterable(repeat(data.train_dataloader()))
        yield ((partial(step, batch.to(device)), len(batch)) for batch in batches)


def _tune_ap(cfg: DictConfig, data: CocoDataModule, run: RunFolder) -> float:
    """AP on tune at the end of a training of its own."""
    method = build_method(cfg, data.classes)
    if "weights" in cfg:
        begin(method, cfg.weights.file)
    tune = TuneAP(data, method.point.max_instances)
    once = cfg.trainer.copy()
    once.check_val_every_n_epoch = once.max_epochs
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = make_trainer(once, callbacks=[Draws(cfg.seed), Heartbeat(run.path), tune], **quiet)
    trainer.accumulate_grad_batches *= data.parts
    with interruptible():
        trainer.fit(method, datamodule=data)
    return float(tune.scores().summary["AP"])


def _changed(cfg: DictConfig, epochs: int | None, lr_factor: float) -> DictConfig:
    changed = cfg.copy()
    OmegaConf.update(changed, "trainer.max_epochs", epochs)
    if lr_factor != 1:
        OmegaConf.update(changed, "optim.optimiser.lr", lr_factor * cfg.optim.optimiser.lr)
    return changed
