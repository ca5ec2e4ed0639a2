"""One trial from start to end: fit, judge on test, time, write the run folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import replace_text
from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError
from maskbench.evaluation.precision import precision_name
from maskbench.methods.base import Segmenter
from maskbench.runtime.checkpoints import BEST, Checkpoints, chosen, fit_weights, newest, read_checkpoint
from maskbench.runtime.compose import build, make, make_trainer
from maskbench.runtime.console import say, show_scores
from maskbench.runtime.divergence import Divergence
from maskbench.runtime.draws import Draws
from maskbench.runtime.environment import environment
from maskbench.runtime.fitting import as_yaml
from maskbench.runtime.heartbeat import Heartbeat
from maskbench.runtime.history import History
from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.judging import judge
from maskbench.runtime.media import TuneOverlays, build_logger, end_curve, summarise
from maskbench.runtime.memory import Parts, told
from maskbench.runtime.plan import make_plan
from maskbench.runtime.progress import shown
from maskbench.runtime.published import begin
from maskbench.runtime.quiet import hush
from maskbench.runtime.ranks import leads
from maskbench.runtime.rehearsal import require_validation
from maskbench.runtime.run_folder import RunFolder, write_json
from maskbench.runtime.timing import Conditions, time_runs
from maskbench.runtime.trial import Composed
from maskbench.runtime.tuning import TuneAP
from maskbench.runtime.unreadable import Unreadable
from maskbench.sweep.identity import fairness

CHECKPOINT = {"last": "last", "best": "best (selected on tune)"}
"""How metrics.json calls the weights that were judged."""


def train(trial: Composed, done: Callable[[], None]) -> None:
    """Train the method of a composed config, or go on after its last epoch, and write its run folder.

    Every device's process runs all of it, since all take part in training and in counting; the first one writes.

    Args:
        trial: what to train, rehearsed (`rehearsal.rehearse`).
        done: called when the folder is complete, before W&B is told: a network that is down makes no run a failure.
    """
    cfg, run = trial.cfg, RunFolder(trial.folder)
    hush()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
        cv2.setNumThreads(cfg.threads)
    file, precision = chosen(cfg.checkpoint), precision_name(cfg.trainer.precision)
    if leads():
        run.write_config(cfg)
        if trial.fitted:
            _tell_of_fit(trial, run)
    data, method = build(cfg)
    if file == BEST:
        _require_tune(data)
    if "weights" in cfg:
        begin(method, cfg.weights.file)
    parts = Parts.of(run)
    data.parts = parts.count
    within = partial(told, run, cfg.out_of_memory, parts=parts)
    with within(images=data.batch // parts.count):
        plan = make_plan(cfg, data, method, run)
    cfg = plan.applied(cfg)
    method.optim = make(cfg.optim)
    if file == BEST:  # epochs are the plan's now
        require_validation(cfg)
    with _logger(trial, method) as logger:
        history, unreadable = History(run.history), Unreadable(data)
        trainer = _trainer(cfg, run, data, method, (history, unreadable), logger)
        trainer.accumulate_grad_batches *= parts.count
        device = trainer.strategy.root_device
        if leads():
            _describe(trial, data, device)
            _tell_of_limit(data, method.point.max_instances)
            _tell_of_share(data)
            _tell_of_gpu(device)
        with within(images=data.batch // trainer.world_size // parts.count):
            _fit(trainer, method, data, run, _note(cfg, data))
        if file == BEST:
            fit_weights(method, read_checkpoint(run.checkpoints / BEST)["state_dict"], run.checkpoints / BEST)
        found = judge(cfg, method, data, run, Heartbeat(run.path))
        counts = {"plan": asdict(plan), "parts": asdict(parts), "unreadable": unreadable.summary()}
        metrics = _about(cfg, method, history) | counts | found
        if not trainer.is_global_zero:
            return
        write_json(run.metrics, metrics)  # which say at what threshold it is deployed
        if cfg.speed.enabled:
            time_runs({run: method}, data, precision, Conditions(device, cfg.speed.images, cfg.threads or 1))
        done()
        if logger is not None:
            end_curve(logger, metrics, trainer.global_step)
            summarise(logger.experiment, run)
    show_scores(run.path.name, metrics)


def _require_tune(data: CocoDataModule) -> None:
    """Raise unless tune can choose the best weights."""
    if not data.image_ids("tune"):
        raise ConfigError(
            "checkpoint=best chooses weights by their AP on tune, but that split is empty: set data.tune_share above 0 "
            "or data.tune_annotations, or take checkpoint=last"
        )
    if not data.objects("tune"):
        raise ConfigError(
            "checkpoint=best chooses weights by their AP on tune, but no object is in any of its "
            f"{len(data.image_ids('tune'))} photos: raise data.tune_share, set data.tune_annotations, or take "
            "checkpoint=last"
        )


def _describe(trial: Composed, data: CocoDataModule, device: torch.device) -> None:
    """Write what the run may be compared with, and what its data are like."""
    run = RunFolder(trial.folder)
    settings: Any = OmegaConf.to_container(trial.cfg)
    write_json(run.fairness, fairness(settings, trial.fingerprint, environment(device)))
    named = {"name": trial.data_name, "fingerprint": trial.fingerprint}
    write_json(run.data, named | data.profile.as_dict())


def _tell_of_fit(trial: Composed, run: RunFolder) -> None:
    """Which settings were fitted to the data, and why each has its value."""
    named = f"{trial.cfg.method_name} on {trial.data_name} (train and tune, never test)"
    replace_text(run.fitted, as_yaml(trial.fitted, [f"Fitted to the data: {named}."]))
    say(f"{len(trial.fitted)} settings are fitted to the data: {run.fitted} says which, and why.")


def _tell_of_gpu(device: torch.device) -> None:
    """That one is left idle."""
    if device.type == "cpu" and torch.cuda.is_available():
        say("Training on the CPU, although there is a GPU: trainer=default or trainer.accelerator=auto takes it.")


def _tell_of_limit(data: CocoDataModule, limit: int) -> None:
    """Say so where a method can't find all objects of an image, however good it is."""
    most = data.profile.most_per_image
    if most > limit:
        say(
            f"An image has up to {most} objects, but evaluation.point.max_instances={limit}: the others count as "
            "missed. evaluation=crowded admits more."
        )


def _tell_of_share(data: CocoDataModule) -> None:
    """Say so where nobody has said which photos are test, nor which belong together."""
    if data.test_share and data.grouping is None:
        say(
            f"{data.annotations('test')}: {data.test_share:.0%} of its photos are set apart by hash to be test, since "
            "there are no other annotations. Where photos belong together (of a patient, a video), data.group_by=FIELD "
            "keeps them in one split."
        )


def _trainer(
    cfg: DictConfig,
    run: RunFolder,
    data: CocoDataModule,
    method: Segmenter,
    counts: Sequence[Callback],
    logger: WandbLogger | None,
) -> Trainer:
    tune = bool(data.image_ids("tune"))
    # in this order: AP is known before the history is written, and both before the checkpoint is
    callbacks = shown(
        Draws(cfg.seed),
        Divergence(),
        Heartbeat(run.path),
        *([TuneAP(data, method.point.max_instances), TuneOverlays(data)] if tune else []),
        *counts,
        Checkpoints(run.checkpoints, _note(cfg, data), best=cfg.checkpoint == "best", minutes=cfg.checkpoint_minutes),
    )
    given = {"logger": logger or False, "enable_checkpointing": True, "default_root_dir": str(run.path), **callbacks}
    return make_trainer(cfg.trainer, **given, **({} if tune else {"limit_val_batches": 0}))


def _note(cfg: DictConfig, data: CocoDataModule) -> dict[str, Any]:
    """What the weights belong to."""
    return {"method": cfg.method_name, "classes": list(data.classes), "category_ids": list(data.category_ids)}


def _fit(trainer: Trainer, method: Segmenter, data: CocoDataModule, run: RunFolder, note: dict[str, Any]) -> None:
    resumed = None
    if found := newest(run.checkpoints, method, note):
        resumed = found.path
        within = f" and {found.batches} batches" if found.batches else ""
        say(f"{run.path} goes on after epoch {found.epochs}{within}")
    with interruptible():
        trainer.fit(method, datamodule=data, ckpt_path=resumed, weights_only=True)


def _about(cfg: DictConfig, method: Segmenter, history: History) -> dict[str, Any]:
    """The part of metrics.json that is known without test."""
    return {
        "method": cfg.method_name,
        "paradigm": method.paradigm,
        "seed": cfg.seed,
        "checkpoint": CHECKPOINT[cfg.checkpoint],
        "epochs": history.epochs,
        "images_seen": history.images,
        "minutes": history.minutes,
        "score_rule": cfg.method.get("score"),
    }


@contextmanager
def _logger(trial: Composed, method: Segmenter) -> Iterator[WandbLogger | None]:
    """The trial's W&B run, closed at the end whatever happens; of several processes the first one has it."""
    logger = build_logger(trial, method) if leads() else None
    finished = False
    try:
        yield logger
        finished = True
    finally:
        if logger is not None:
            logger.experiment.finish(exit_code=0 if finished else 1)
