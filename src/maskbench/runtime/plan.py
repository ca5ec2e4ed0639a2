"""How long and at what learning rate a method is trained, by the protocol of the comparison.

The budget is equal for all methods in images, in floating point operations or in minutes; what an epoch of a method
costs is measured on its first batches, on a copy. Where a protocol has several learning rates, each is tried for a
share of the budget, annealed to its own end, and AP on the tune split chooses. Every method gets the same small budget
for that, and the plan says what it found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from statistics import mean, median

import torch
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError
from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.cost import count_flops
from maskbench.evaluation.precision import precision_name
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method, make
from maskbench.runtime.console import say
from maskbench.runtime.draws import Draws
from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.published import begin
from maskbench.runtime.ranks import leads
from maskbench.runtime.run_folder import RunFolder, read_json, write_json
from maskbench.runtime.timing import pick_device
from maskbench.runtime.tuning import TuneAP
from maskbench.structures import Batch

PROBES, REHEARSALS = 6, 2
"""Batches that tell what an image costs, and steps before the clock counts."""


@dataclass(frozen=True)
class Plan:
    """What a protocol means for one method.

    Attributes:
        protocol: its name.
        epochs: of training; None where the trainer is told otherwise how long (`max_steps`).
        rate: factor on the learning rate.
        cost: what one image costs in training, in the budget's unit (`tflops` or `minutes`); empty where images are it.
        tried: AP on tune by factor, of those that were tried.
        tuning_epochs: how long each was tried.
    """

    protocol: str
    epochs: int | None
    rate: float = 1.0
    cost: dict[str, float] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)
    tuning_epochs: int = 0

    def applied(self, cfg: DictConfig) -> DictConfig:
        """The config with the plan's length and learning rate."""
        return _changed(cfg, self.epochs, self.rate)


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
    _require_sense(cfg, data)
    known = read_json(run.plan) if run.plan.exists() else {}
    if known:
        plan = Plan(**known)
    else:
        with torch.random.fork_rng():
            plan = _measured(cfg, data, method)
        _write(run, plan)
    rates = [float(rate) for rate in cfg.protocol.rates]
    if len(rates) == 1:
        return replace(plan, rate=rates[0])
    for rate in rates:
        if str(rate) not in plan.tried:
            ap = _tried(_changed(cfg, plan.tuning_epochs, rate), data)
            say(f"{run.path.name}: learning rate × {rate:g} has an AP of {100 * ap:.1f} on tune")
            plan = replace(plan, tried={**plan.tried, str(rate): ap})
            _write(run, plan)
    best = max(rates, key=lambda rate: plan.tried[str(rate)])
    plan = replace(plan, rate=best)
    _write(run, plan)
    return plan


def _write(run: RunFolder, plan: Plan) -> None:
    if leads():
        write_json(run.plan, asdict(plan))


def _require_sense(cfg: DictConfig, data: CocoDataModule) -> None:
    protocol = cfg.protocol
    for name in ("share", "tuning_share"):
        if not 0 < protocol[name] <= 1:
            raise ConfigError(
                f"protocol.{name}={protocol[name]}: expected a share of the budget, above 0 and at most 1"
            )
    if not protocol.rates or any(rate <= 0 for rate in protocol.rates):
        raise ConfigError(f"protocol.rates={list(protocol.rates)}: expected one or more factors above 0")
    if protocol.share != 1 and not cfg.trainer.max_epochs and protocol.tflops is None and protocol.minutes is None:
        raise ConfigError(f"protocol.share={protocol.share} is one of trainer.max_epochs, which is not set")
    if protocol.tflops is not None and protocol.minutes is not None:
        raise ConfigError("protocol.tflops and protocol.minutes are two budgets: set one of them")
    if len(protocol.rates) > 1 and not data.objects("tune"):
        raise ConfigError(
            f"protocol.rates={list(protocol.rates)} are chosen by AP on tune, but it has no object: set "
            "data.tune_share above 0 or data.tune_annotations, or take one rate"
        )
    if protocol.minutes is not None and cfg.trainer.devices != 1:
        raise ConfigError(
            "protocol.minutes: processes that train together can't agree on their clocks; take one device"
        )


def _measured(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> Plan:
    protocol, images = cfg.protocol, len(data.image_ids("train"))
    if protocol.tflops is not None:
        unit, budget, cost = "tflops", protocol.tflops, _flops(cfg, data, method) / 1e12
    elif protocol.minutes is not None:
        unit, budget, cost = "minutes", protocol.minutes, _seconds(cfg, data, method) / 60
    else:
        epochs = (
            cfg.trainer.max_epochs if protocol.share == 1 else max(1, round(protocol.share * cfg.trainer.max_epochs))
        )
        return Plan(protocol.name, epochs, tuning_epochs=max(1, round(protocol.tuning_share * (epochs or 1))))
    epochs = protocol.share * budget / (cost * images)
    if epochs < 0.5:
        raise ConfigError(
            f"protocol.{unit}={budget} × share {protocol.share}: one epoch of this method takes {cost * images:.3g}, "
            "and half of one is the least that can be trained"
        )
    tuning = max(1, round(protocol.tuning_share * epochs))
    return Plan(protocol.name, round(epochs), cost={unit: cost}, tuning_epochs=tuning)


def _flops(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> float:
    """Floating point operations of the convolutions and products of a training step, by image."""
    costs = [count_flops(step) / images for step, images in islice(_steps(cfg, data, method), PROBES)]
    return mean(costs)


def _seconds(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> float:
    """Seconds of a training step by image, loading included."""
    costs = []
    last = time.perf_counter()
    for step, images in islice(_steps(cfg, data, method), REHEARSALS + PROBES):
        step()
        now = time.perf_counter()
        costs.append((now - last) / images)
        last = now
    return median(costs[REHEARSALS:])


def _steps(cfg: DictConfig, data: CocoDataModule, method: Segmenter) -> Iterator[tuple[Callable[[], None], int]]:
    """Training steps of a copy of the method on the first batches, where and in which precision it will be trained."""
    device = torch.device("cpu") if cfg.trainer.accelerator == "cpu" else pick_device(None)
    copied = deepcopy(method).to(device).train()
    optimizer = copied.optim(copied, 1000)["optimizer"]
    precision = precision_name(cfg.trainer.precision)
    for batch in cycle(data.train_dataloader()):
        there = batch.to(device)

        def step(batch: Batch = there) -> None:
            optimizer.zero_grad()
            with autocast(device, precision):
                total = torch.stack(list(copied.loss(batch).values())).sum()
            total.backward()
            optimizer.step()
            total.item()  # a device is waited for

        yield step, len(batch)


def _tried(cfg: DictConfig, data: CocoDataModule) -> float:
    """AP on tune at the end of a training of its own."""
    method = build_method(cfg, data.classes)
    if "weights" in cfg:
        begin(method, cfg.weights.file)
    tune = TuneAP(data, method.point.max_instances)
    once = cfg.trainer.copy()
    once.check_val_every_n_epoch = once.max_epochs
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer: Trainer = make(once, callbacks=[Draws(cfg.seed), tune], **quiet)
    with interruptible():
        trainer.fit(method, datamodule=data)
    return float(tune.scores().summary["AP"])


def _changed(cfg: DictConfig, epochs: int | None, rate: float) -> DictConfig:
    changed = cfg.copy()
    OmegaConf.update(changed, "trainer.max_epochs", epochs)
    if rate != 1:
        OmegaConf.update(changed, "optim.optimiser.lr", rate * cfg.optim.optimiser.lr)
    return changed
