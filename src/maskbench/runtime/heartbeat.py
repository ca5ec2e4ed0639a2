"""A sign of life for whoever watches a trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from maskbench.sweep.status import HEARTBEAT

SECONDS = 10.0
"""Between two signs of life, at least."""


class Heartbeat(Callback):
    """Touches the file `HEARTBEAT` in the run's folder while batches are trained on, validated or tested.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self._last = folder / HEARTBEAT, -SECONDS

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._beat()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._beat()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._beat()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._beat()

    def _beat(self) -> None:
        if time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            self.file.touch()
