"""AP on tune while a method is trained."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.scoring import Scores, score
from maskbench.structures import Batch


class TuneAP(Callback):
    """Logs mask AP on tune after every validation, as `tune/AP` and `tune/AP50`."""

    def __init__(self, data: CocoDataModule, max_instances: int) -> None:
        self.ap = AveragePrecision(
            data.annotations("tune"),
            data.category_ids,
            image_ids=data.image_ids("tune"),
            iou_types=("segm",),
            max_instances=max_instances,
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ap.reset()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.ap.update(outputs, batch.frames)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self.ap.compute()["segm"]
        # every rank has computed the number over all images: nothing is left to reduce
        pl_module.log_dict({f"tune/{name}": found[name] for name in ("AP", "AP50")}, rank_zero_only=False)

    def scores(self) -> Scores:
        """Of the last validation; to be called on every rank."""
        return score(self.ap.truth, self.ap.results(), iou_type="segm", max_instances=self.ap.max_instances)
