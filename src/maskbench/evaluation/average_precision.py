"""AP as a metric of torchmetrics: for predictions that arrive batch by batch, on one process or many."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from maskbench.errors import DataError
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.overlaps import IouType, geometry_of
from maskbench.evaluation.records import Records
from maskbench.evaluation.results import Result, coco_results
from maskbench.evaluation.scoring import as_metrics, score
from maskbench.structures import Frame, Instances


class AveragePrecision(Records):
    """`score` for predictions that arrive batch by batch, on one process or many.

    Keeps run-length encoded masks in host memory, and counts an image once however many processes predicted it.

    The truth may list fewer categories than there are labels: as with pycocotools, what is found of the others neither
    helps nor harms, and it is in no result.

    Args:
        truth: the untouched annotation json, or the same already read, which several metrics may share.
        category_ids: the COCO category id of each label.
        image_ids: the images that count, predicted or not (default: all of the json).
        iou_types: what is compared: masks (`segm`), boxes (`bbox`) or masks with their boundaries (`boundary`).
        max_instances: the best detections of an image and class that count.

    Raises:
        DataError: the json can't be scored against, or lists none of the labels' categories.
    """

    higher_is_better = True

    def __init__(
        self,
        truth: GroundTruth | str | Path,
        category_ids: Sequence[int],
        *,
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[IouType] = ("segm", "bbox"),
        max_instances: int = 100,
    ) -> None:
        super().__init__()
        self.truth = truth if isinstance(truth, GroundTruth) else GroundTruth(truth, image_ids)
        self.image_ids = None if image_ids is None else tuple(image_ids)
        self.category_ids = tuple(category_ids)
        self.iou_types = tuple(iou_types)
        self.max_instances = max_instances
        if not set(self.category_ids) & set(self.truth.classes):
            raise DataError(
                f"{self.truth.path}: lists the categories {list(self.truth.classes)}, but labels stand for "
                f"{list(self.category_ids)}: is it of another data set?"
            )
        for iou_type in self.iou_types:
            self.truth.annotations(geometry_of(iou_type))

    def update(self, instances: Sequence[Instances], frames: Sequence[Frame]) -> None:
        """Take the predictions of a batch, in photo pixels."""
        for found, frame in zip(instances, frames, strict=True):
            results = [
                result
                for result in coco_results(found, frame, self.category_ids)
                if result["category_id"] in self.truth.classes
            ]
            self.keep(frame.image_id, results)

    def compute(self) -> dict[str, dict[str, Any]]:
        """The numbers of all predictions so far, as `as_metrics` has them."""
        results = list(chain.from_iterable(self.merged()))
        shared: dict[str, Any] = {"image_ids": self.image_ids, "max_instances": self.max_instances}
        return as_metrics(
            {iou_type: score(self.truth, results, iou_type=iou_type, **shared) for iou_type in self.iou_types}
        )

    def results(self) -> list[Result]:
        """COCO results of all processes by image id; like `compute`, to be called on every process."""
        return list(chain.from_iterable(self.merged_over_processes()))
