"""Photos of training that could not be read and were skipped: who they are, told once and counted."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import distributed

from maskbench.data.datamodule import CocoDataModule
from maskbench.runtime.console import say
from maskbench.structures import Batch

FIRST = 20
"""File names that metrics.json has."""


class Unreadable(Callback):
    """Collects the ids of images in whose place a batch had nothing.

    Args:
        data: the data set.
    """

    def __init__(self, data: CocoDataModule) -> None:
        self.data = data
        self.image_ids: set[int] = set()

    def state_dict(self) -> dict[str, Any]:
        return {"image_ids": sorted(self.image_ids)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.image_ids = set(state_dict["image_ids"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        for image_id in sorted(set(batch.unreadable) - self.image_ids):
            path = self.data.image_path("train", image_id)
            say(f"{path}: can't be read, and nothing stands in its place (data.unreadable=skip)")
        self.image_ids.update(batch.unreadable)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Of all devices, each of which reads others."""
        if trainer.world_size > 1:
            found: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(found, self.image_ids)
            self.image_ids.update(*found)

    def summary(self) -> dict[str, Any]:
        """Their number, that of all images of training, and the names of the first."""
        names = [self.data.image_path("train", image_id).name for image_id in sorted(self.image_ids)[:FIRST]]
        return {"photos": len(self.image_ids), "of": len(self.data.image_ids("train")), "first": names}
