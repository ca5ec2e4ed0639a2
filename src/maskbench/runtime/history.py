"""history.csv: one row an epoch, kept across interruptions."""

from __future__ import annotations

import csv
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from maskbench.atomic import replacing
from maskbench.errors import RunError
from maskbench.structures import Batch

Row = dict[str, float | int | str]

LOGGED = ("lr", "images_per_second", "memory_mb", "minutes", "images")
"""Columns that go to the logger as well; the losses of every few steps are there already."""


class History(Callback):
    """Writes a row after every epoch: losses, AP on tune, learning rate, speed and memory of training.

    Minutes are those of training alone; validation does not count. The counts travel with the checkpoint, so a resumed
    run goes on where it was, and rows of an epoch that is trained again are replaced.

    Args:
        path: of history.csv.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs = 0
        self.images = 0
        self.minutes = 0.0
        self._losses: dict[str, Tensor] = {}
        self._epoch_images = 0
        self._epoch_seconds = 0.0
        self._since: float | None = None
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        done = {"epochs": self.epochs, "images": self.images, "minutes": self.minutes}
        return done | {"epoch": {"losses": self._losses, "images": self._epoch_images, "seconds": self._seconds()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs, self.images, self.minutes = (state_dict[name] for name in ("epochs", "images", "minutes"))
        # of an epoch that is not over; Lightning goes on in its middle without saying that it starts
        self._losses, self._epoch_images, self._epoch_seconds = state_dict["epoch"].values()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            write_rows(self.path, [row for row in read_rows(self.path) if int(row["epoch"]) < trainer.current_epoch])
        self._losses = {name: value.to(pl_module.device) for name, value in self._losses.items()}
        self._start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses, self._epoch_images, self._epoch_seconds, self._validated = {}, 0, 0.0, False
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what training took so far beside AP: W&B draws one against the other where they are logged at once."""
        hours = (self.minutes + self._epoch_seconds / 60) / 60
        pl_module.log_dict({"images": float(self.images + self._epoch_images), "hours": hours})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True
        self._start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._epoch_images += len(batch) * trainer.world_size
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/"):  # weighted by images; on the device, so that no step waits for it
                self._losses[name] = self._losses.get(name, 0.0) + len(batch) * value.detach()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()
        self.epochs += 1
        self.images += self._epoch_images
        self.minutes += self._epoch_seconds / 60
        row = self._row(trainer)
        named = {name: float(row[name]) for name in LOGGED} | {"loss": float(row["train/loss"])}
        pl_module.log_dict(named, on_epoch=True)
        if trainer.is_global_zero:
            write_rows(self.path, [*read_rows(self.path), row])

    def _row(self, trainer: Trainer) -> Row:
        share = trainer.world_size / max(1, self._epoch_images)
        found = trainer.callback_metrics if self._validated else {}  # Lightning keeps those of an earlier epoch
        tune = {name: value.item() for name, value in found.items() if name.startswith("tune/")}
        return {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "images": self.images,
            "minutes": self.minutes,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "images_per_second": self._epoch_images / max(1e-9, self._epoch_seconds),
            "memory_mb": process_memory(),
            **{name: float(value) * share for name, value in self._losses.items()},
            **tune,
        }

    def _seconds(self) -> float:
        """Of training in this epoch so far."""
        return self._epoch_seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def _start(self) -> None:
        self._since = time.perf_counter()

    def _stop(self) -> None:
        self._epoch_seconds, self._since = self._seconds(), None


def process_memory() -> float:
    """MB (10^6 bytes): the most that tensors took on the GPU so far, or that this process took in host memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes there, KiB here


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows so far; none when the file does not exist.

    Raises:
        RunError: it can't be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        _ = [int(row["epoch"]) for row in rows]
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(
            f"{path}: not readable as a history ({type(error).__name__}: {error}); delete it: the curves of the epochs "
            "so far are lost, and nothing else"
        ) from error


def write_rows(path: Path, rows: list[Mapping[str, Any]]) -> None:
    """All rows, with every column that one of them has; replaced in one step."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
