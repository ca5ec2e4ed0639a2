"""AP of a split while Lightning goes through it: on tune as a method is trained, on test at other operating points."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer

from maskbench.data.datamodule import CocoDataModule, Split
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.scoring import Scores, score
from maskbench.structures import Batch


class SplitAP(Callback):
    """Collects what is predicted of a split, and its mask AP.

    Args:
        data: the data set.
        split: which.
        max_instances: the best of an image that count.
    """

    def __init__(self, data: CocoDataModule, split: Split, max_instances: int) -> None:
        self.ap = AveragePrecision(
            data.annotations(split),
            data.category_ids,
            image_ids=data.image_ids(split),
            iou_types=("segm",),
            max_instances=max_instances,
        )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.ap.update(outputs, batch.frames)

    def scores(self) -> Scores:
        """Of all that was collected; to be called on every rank."""
        return score(self.ap.truth, self.ap.results(), iou_type="segm", max_instances=self.ap.max_instances)


class TuneAP(SplitAP):
    """Logs mask AP on tune after every validation, as `tune/AP` and `tune/AP50`."""

    def __init__(self, data: CocoDataModule, max_instances: int) -> None:
        super().__init__(data, "tune", max_instances)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ap.reset()

    on_validation_batch_end = SplitAP.on_predict_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = self.ap.compute()["segm"]
        # every rank has computed the number over all images: nothing is left to reduce
        pl_module.log_dict({f"tune/{name}": found[name] for name in ("AP", "AP50")}, rank_zero_only=False)
