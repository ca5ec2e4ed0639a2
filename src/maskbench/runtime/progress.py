"""Progress of training: a Rich bar with loss, AP and images a second in a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn

from maskbench.runtime.console import console, say
from maskbench.structures import Batch


def shown(*callbacks: Callback) -> dict[str, Any]:
    """Arguments of a Trainer: the callbacks, and after them what shows progress where it is run."""
    if console.is_terminal:
        return {"callbacks": [*callbacks, Bar()], "enable_progress_bar": True}
    return {"callbacks": [*callbacks, Lines()], "enable_progress_bar": False}


class Bar(RichProgressBar):
    """Lightning's bar with three numbers: loss, AP on tune so far, training images a second."""

    def __init__(self) -> None:
        theme = RichProgressBarTheme(metrics_text_delimiter="  ", metrics_format=".3g")
        super().__init__(refresh_rate=5, theme=theme, console_kwargs={"stderr": True})
        self._images = 0
        self._since = time.perf_counter()

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Narrow, so that the numbers fit into 80 columns."""
        steps = TextColumn("{task.completed:.0f}/{task.total:.0f}")
        return [TextColumn("{task.description}"), BarColumn(bar_width=16), steps, TimeRemainingColumn(compact=True)]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._images, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._images += len(batch) * trainer.world_size
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        found = trainer.callback_metrics
        named = {"loss": (found.get("train/loss"), 1), "AP": (found.get("tune/AP"), 100)}
        rate = self._images / max(1e-9, time.perf_counter() - self._since)
        shown = {name: scale * float(value) for name, (value, scale) in named.items() if value is not None}
        return shown | {"images/s": rate}


SECONDS = 30.0
"""Between two lines about a test."""


class Lines(Callback):
    """For logs and pipes: one line an epoch of training, and of a test one every `SECONDS`."""

    def __init__(self) -> None:
        self._validated = False
        self._told = time.perf_counter()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._told = time.perf_counter()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.is_global_zero and time.perf_counter() - self._told >= SECONDS:
            self._told = time.perf_counter()
            say(f"judged: batch {batch_idx + 1}/{trainer.num_test_batches[dataloader_idx]}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        found = trainer.callback_metrics
        tune = {"AP": ("tune/AP", 100)} if self._validated else {}  # Lightning keeps that of an earlier epoch
        named = {"loss": ("loss", 1), **tune, "images/s": ("images_per_second", 1), "minutes": ("minutes", 1)}
        numbers = "  ".join(
            f"{label} {scale * float(found[key]):.3g}" for label, (key, scale) in named.items() if key in found
        )
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {numbers}")
