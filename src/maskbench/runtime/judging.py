"""A trained method before the test split: its AP, its ceiling, its predictions."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.results import write_results
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import make
from maskbench.runtime.pictures import write_thumbnails
from maskbench.runtime.progress import shown
from maskbench.runtime.run_folder import RunFolder
from maskbench.structures import Batch, Instances

SHOWN = 6
"""Photos of which every run keeps a picture: the same for every method."""


class Judgement(Callback):
    """Measures AP on test, of the method and of its ceiling, and keeps what it found on the first photos.

    Args:
        data: the data set.
        max_instances: the best of an image that count.
    """

    def __init__(self, data: CocoDataModule, max_instances: int) -> None:
        ids = data.image_ids("test")
        shared: dict[str, Any] = {"image_ids": ids, "max_instances": max_instances}
        self.precision = AveragePrecision(data.annotations("test"), data.category_ids, **shared)
        self.ceiling = AveragePrecision(data.annotations("test"), data.category_ids, iou_types=("segm",), **shared)
        self.images = len(ids)
        self.shown: dict[int, Instances] = dict.fromkeys(sorted(ids)[:SHOWN], Instances.empty((0, 0)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Segmenter)
        self.precision.update(outputs, batch.frames)
        self.ceiling.update(pl_module.ceiling(batch), batch.frames)
        for instances, frame in zip(outputs, batch.frames, strict=True):
            if frame.image_id in self.shown:
                self.shown[frame.image_id] = instances.to("cpu")

    def metrics(self) -> dict[str, Any]:
        """The part of metrics.json that was measured on test."""
        scores = self.precision.compute()
        return {
            "split": "test",
            "images": self.images,
            **scores,
            "ceiling": {"segm": self.ceiling.compute()["segm"]},
        }


def judge(cfg: DictConfig, method: Segmenter, data: CocoDataModule, run: RunFolder) -> dict[str, Any]:
    """Predict the test split under the settings of `cfg.trainer`; writes predictions and thumbnails, returns the metrics."""
    judgement = Judgement(data, method.point.max_instances)
    trainer: Trainer = make(cfg.trainer, logger=False, enable_checkpointing=False, **shown(judgement))
    trainer.test(method, dataloaders=data.test_dataloader(), verbose=False)
    if trainer.is_global_zero:
        write_results(run.predictions, judgement.precision.results())
        write_thumbnails(run.thumbnails, data, judgement.shown)
    return judgement.metrics()
