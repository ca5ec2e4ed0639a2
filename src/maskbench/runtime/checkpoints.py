"""last.ckpt after every epoch, the one before as previous.ckpt, best.ckpt on tune, and within.ckpt within an epoch.

Each appears whole, or not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from maskbench.atomic import beside, require_whole, writing
from maskbench.data.sampler import EpochLoader
from maskbench.errors import ConfigError, WeightsError
from maskbench.runtime.console import say
from maskbench.structures import Batch
from maskbench.sweep.status import FILE as STATUS

LAST, PREVIOUS, BEST, WITHIN = "last.ckpt", "previous.ckpt", "best.ckpt", "within.ckpt"
CHOICES = {"last": LAST, "best": BEST}
NOTE = "maskbench"
"""Key of a checkpoint's note: method, classes and category ids, so that it can be used without its data set."""
BATCHES = "batches"
"""Key of the batches of the epoch that is not over; 0 after an epoch."""
RESUMED = ("global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers")
"""What else Lightning goes on from."""
ASK = 20
"""Steps between two questions to the first of several devices, whether it is time to save."""


def chosen(checkpoint: str) -> str:
    """The file that the setting `checkpoint` names."""
    if checkpoint not in CHOICES:
        raise ConfigError(f"checkpoint={checkpoint}: expected one of {', '.join(CHOICES)}")
    return CHOICES[checkpoint]


class Checkpoints(Checkpoint):
    """Saves the state of training in `folder`.

    Args:
        folder: of the checkpoints.
        note: what the weights belong to; plain values.
        best: keep the epoch with the highest AP on tune too.
        minutes: between two checkpoints; None: save after epochs alone.
    """

    def __init__(self, folder: Path, note: dict[str, Any], *, best: bool = False, minutes: float | None = None) -> None:
        self.folder = folder
        self.note = note
        self.best = best
        self.best_ap = -1.0
        self.minutes = minutes
        self._saved = time.monotonic()
        self._batches = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best_ap": self.best_ap}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_ap = state_dict["best_ap"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[NOTE] = self.note
        checkpoint[BATCHES] = self._batches

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._batches = checkpoint[BATCHES]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._batches:  # Lightning asked for the loader before it read the checkpoint, and tells it nothing any more
            assert isinstance(trainer.train_dataloader, EpochLoader)
            trainer.train_dataloader.go_on(self._batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        # not between two parts of a step, and not where the epoch's own checkpoint is about to come
        every = trainer.accumulate_grad_batches * (ASK if trainer.world_size > 1 else 1)
        if self.minutes is None or trainer.is_last_batch or (batch_idx + 1) % every:
            return
        due = time.monotonic() - self._saved >= 60 * self.minutes
        if trainer.strategy.broadcast(due and bool(trainer.callback_metrics["train/loss"].isfinite())):
            self._batches = batch_idx + 1
            self._save(trainer, WITHIN)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._batches = 0
        ap = float(trainer.callback_metrics.get("tune/AP", -1.0))
        if self.best and (ap > self.best_ap or not (self.folder / BEST).exists()):
            self.best_ap = max(ap, self.best_ap)
            self._save(trainer, BEST)
        self._save(trainer, LAST)
        if trainer.is_global_zero:
            forget_within(self.folder)

    def _save(self, trainer: Trainer, name: str) -> None:
        # one name for all: every rank takes part in saving, and what a killed process left is written over
        path, part = self.folder / name, self.folder / f".{name}.part"
        with writing(path):
            try:
                trainer.save_checkpoint(part)
                if trainer.is_global_zero:
                    if name == LAST and path.exists():
                        _keep(path, self.folder / PREVIOUS)
                    part.replace(path)
            except OSError:  # half of it would take the room that status.json needs
                if trainer.is_global_zero:
                    part.unlink(missing_ok=True)
                raise
        self._saved = time.monotonic()


def _keep(path: Path, other: Path) -> None:
    """Let a file have another name too, so that who reads it meanwhile finds it; where that can't be, in its place."""
    link = beside(other)
    try:
        os.link(path, link)
        link.replace(other)
        link.unlink(missing_ok=True)  # where both were one file already, nothing moves
    except OSError:
        path.replace(other)


def forget_within(folder: Path) -> None:
    """The next attempt goes on after an epoch."""
    (folder / WITHIN).unlink(missing_ok=True)


class Newest(NamedTuple):
    """The checkpoint to go on from, and how far it came: finished epochs, and batches of the next one."""

    path: Path
    epochs: int
    batches: int


def newest(folder: Path, method: LightningModule | None = None, note: Mapping[str, Any] | None = None) -> Newest | None:
    """The checkpoint to go on from; None before the first.

    Args:
        folder: of the checkpoints.
        method: that is to go on, if one is.
        note: what its weights belong to.

    Raises:
        WeightsError: there are some, but none can be read, or none is of the method.
    """
    paths = [path for path in (folder / WITHIN, folder / LAST, folder / PREVIOUS) if path.exists()]
    problems: list[WeightsError] = []
    for path in paths:
        try:
            found = read_checkpoint(path)
            _require_training(found, path)
            if method is not None:
                _require_same(found, path, method, note)
        except WeightsError as problem:
            problems.append(problem)
            continue
        if problems:
            say(f"{problems[0]}\n{path.name} is whole: what came after it is trained again.")
        batches = found[BATCHES]
        return Newest(path, found["epoch"] + (0 if batches else 1), batches)
    if problems:
        raise problems[0]
    return None


def _require_training(content: Mapping[str, Any], path: Path) -> None:
    """Raise unless training can go on from it."""
    if wrong := [name for name in ("epoch", BATCHES) if not isinstance(content.get(name), int)]:
        raise WeightsError(f"{path}: does not tell its {' and '.join(wrong)}. {_remedy(path).capitalize()}.")


def _require_same(
    content: Mapping[str, Any], path: Path, method: LightningModule, note: Mapping[str, Any] | None
) -> None:
    """Raise unless this training wrote it."""
    if missing := [name for name in RESUMED if name not in content]:
        raise WeightsError(f"{path}: lacks {', '.join(missing)}. {_remedy(path).capitalize()}.")
    for name, wanted in (note or {}).items():
        if (found := content[NOTE].get(name)) != wanted:
            raise WeightsError(
                f"{path}: its {name} is {found!r:.80}, but that of this run is {wanted!r:.80}. Put back the run's own "
                f"checkpoint, or {_remedy(path)}."
            )
    if misfits := _misfits(method, content["state_dict"]):
        raise WeightsError(f"{path}: does not fit {type(method).__name__}: {misfits}. {_remedy(path).capitalize()}.")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU; tensors and plain values alone are unpickled.

    Raises:
        WeightsError: it is missing, truncated, or not a checkpoint of maskbench.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such checkpoint. If the run has not finished an epoch, train it first; if the file was "
            f"removed, {_remedy(path)}."
        )
    try:
        require_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise errors of their own on a damaged file
        reason = str(error).splitlines()[0] if str(error) else ""
        raise WeightsError(
            f"{path}: not readable as a checkpoint ({type(error).__name__}: {reason}). It may have been cut while it "
            f"was copied: {_remedy(path)}."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in ("state_dict", NOTE)):
        raise WeightsError(f"{path}: holds no weights of a maskbench run (expected state_dict and {NOTE})")
    if not all(isinstance(value, Tensor) for value in content["state_dict"].values()):
        raise WeightsError(f"{path}: its state_dict holds what is no tensor. {_remedy(path).capitalize()}.")
    return content


def _remedy(path: Path) -> str:
    """How to come by a checkpoint again: a run that is done is not trained again while its status says so."""
    folder, status = path.parent, path.parent.parent / STATUS
    if path.name == LAST and (folder / PREVIOUS).is_file():
        return f"copy it again, or delete {status} and train again, which goes on from {PREVIOUS}"
    return f"copy it again, or delete {folder} and {status} and train again, from the start"


def fit_weights(module: LightningModule, weights: dict[str, Tensor], path: Path) -> None:
    """Load `weights` into `module`, all of them.

    Raises:
        WeightsError: they belong to another network; says which tensors differ.
    """
    if misfits := _misfits(module, weights):
        raise WeightsError(f"{path}: does not fit {type(module).__name__}: {misfits}")
    module.load_state_dict(weights)


def _misfits(module: LightningModule, weights: Mapping[str, Tensor]) -> str:
    """Which tensors differ in name or shape; empty where none does."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    found = [
        *([f"lacks {len(missing)} tensors, first {missing[0]}"] if missing else []),
        *([f"has {len(extra)} that are not in it, first {extra[0]}"] if extra else []),
        *sorted(shapes)[:3],
    ]
    return "; ".join(found)
