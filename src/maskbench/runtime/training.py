"""One trial from start to end: fit, judge on test, time, write the run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import torch
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from omegaconf import DictConfig, OmegaConf

from maskbench.data.datamodule import CocoDataModule
from maskbench.methods.base import Segmenter
from maskbench.runtime.checkpoints import BEST, LAST, Checkpoints, chosen, fit_weights, read_checkpoint
from maskbench.runtime.compose import build, make
from maskbench.runtime.console import say, show_precision
from maskbench.runtime.environment import environment
from maskbench.runtime.history import History
from maskbench.runtime.judging import judge
from maskbench.runtime.media import TuneOverlays, build_logger, summarise
from maskbench.runtime.progress import shown
from maskbench.runtime.quiet import hush
from maskbench.runtime.run_folder import RunFolder, write_json
from maskbench.runtime.timing import first_photos, time_runs
from maskbench.runtime.trial import Composed
from maskbench.runtime.tuning import TunePrecision
from maskbench.sweep.identity import fairness

CHECKPOINT = {"last": "last", "best": "best (selected on tune)"}
"""How metrics.json calls the weights that were judged."""


def train(trial: Composed) -> None:
    """Train the method of a composed config, or go on after its last epoch, and write its run folder."""
    cfg, run = trial.cfg, RunFolder(trial.folder)
    hush()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
        cv2.setNumThreads(cfg.threads)
    file = chosen(cfg.checkpoint)  # a wrong choice is told before training, not after
    run.write_config(cfg)
    data, method = build(cfg)
    with _logger(trial, method) as logger:
        history = History(run.history)
        trainer = _trainer(cfg, run, data, method, history, logger)
        device = trainer.strategy.root_device
        settings: Any = OmegaConf.to_container(cfg)
        write_json(run.fairness, fairness(settings, trial.fingerprint, environment(device)))
        _fit(trainer, method, data, run)
        if file == BEST:
            fit_weights(method, read_checkpoint(run.checkpoints / BEST)["state_dict"], run.checkpoints / BEST)
        metrics = _about(cfg, method, history) | judge(cfg, method, data, run)
        if cfg.speed.enabled:
            photos = first_photos(data, cfg.speed.images)
            timing = {"images": cfg.speed.images, "threads": cfg.threads or 1}
            time_runs({run: method}, photos, device, cfg.trainer.precision, **timing)
        write_json(run.metrics, metrics)  # the last file: a run that has it is done
        summarise(logger, run)
    show_precision(run.path.name, metrics)


def _trainer(
    cfg: DictConfig,
    run: RunFolder,
    data: CocoDataModule,
    method: Segmenter,
    history: History,
    logger: WandbLogger | None,
) -> Trainer:
    note = {"method": cfg.method_name, "classes": list(data.classes), "category_ids": list(data.category_ids)}
    # in this order: AP is known before the history is written, and both before the checkpoint is
    callbacks = shown(
        TunePrecision(data, method.point.max_instances),
        TuneOverlays(data),
        history,
        Checkpoints(run.checkpoints, note, best=cfg.checkpoint == "best"),
    )
    return make(cfg.trainer, logger=logger or False, default_root_dir=str(run.path), **callbacks)


def _fit(trainer: Trainer, method: Segmenter, data: CocoDataModule, run: RunFolder) -> None:
    last = run.checkpoints / LAST
    resumed = None
    if last.exists():
        epoch = read_checkpoint(last)["epoch"] + 1
        say(f"{run.path} goes on after epoch {epoch}")
        resumed = last
    try:
        trainer.fit(method, datamodule=data, ckpt_path=resumed, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


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
    """The trial's W&B run, closed at the end whatever happens."""
    logger = build_logger(trial, method)
    finished = False
    try:
        yield logger
        finished = True
    finally:
        if logger is not None:
            logger.experiment.finish(exit_code=0 if finished else 1)
