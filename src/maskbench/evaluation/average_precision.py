"""COCO's average precision and recall of instances, equal to pycocotools' numbers (Lin et al., ECCV 2014)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch.distributed
from faster_coco_eval import COCO, COCOeval_faster
from torch.nn import Module
from torchmetrics import Metric

from maskbench.errors import DataError
from maskbench.evaluation.ground_truth import GroundTruth, IouType
from maskbench.evaluation.results import Result, coco_results
from maskbench.structures import Frame, Instances

_AP50, _AP75 = 0, 5
"""Rows of IoU 0.50 and 0.75 among 0.50:0.05:0.95."""


@dataclass(frozen=True)
class Scores:
    """COCO's numbers, all in [0, 1], or −1 where the truth has nothing to find.

    `summary` has AP (over IoU 0.50:0.05:0.95), AP50, AP75, APs, APm, APl (area below 32², to 96², above), AR1, AR10 and
    AR<max> (that many detections an image and class), ARs, ARm, ARl. `per_class` has AP by class name.
    """

    summary: dict[str, float]
    per_class: dict[str, float]


def score(
    annotations: str | Path | GroundTruth,
    results: Sequence[Result],
    *,
    iou_type: IouType,
    max_instances: int = 100,
    image_ids: Iterable[int] | None = None,
) -> Scores:
    """Score COCO results against an annotation file.

    Masks take their area from `bbox` if the record has one, as pycocotools does. Boxes are `bbox`, else `box`, else
    the mask's. Summary numbers beside AR1 and AR10 admit `max_instances` detections an image and class (pycocotools
    prints AP at 100 alone, whatever the limit). Results of equal score keep their order.

    Args:
        annotations: the json, or the same already read.
        results: COCO results, possibly none.
        iou_type: `segm` or `bbox`.
        max_instances: the best detections of an image and class that count.
        image_ids: the images that count (default: all of the json).

    Raises:
        DataError: a result or an annotation can't be scored; the message names it.
    """
    truth = annotations if isinstance(annotations, GroundTruth) else GroundTruth(annotations)
    images = truth.known(truth.images if image_ids is None else image_ids)
    detections = [_detection(truth, index, result, iou_type) for index, result in enumerate(results)]
    limits = sorted({1, min(10, max_instances), max_instances})
    precision, recall = _evaluate(truth, detections, iou_type, images, limits)
    return Scores(
        summary=_summary(precision, recall, limits),
        per_class={name: _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(truth.classes.values())},
    )


class AveragePrecision(Metric):
    """`score` for predictions that arrive batch by batch, on one process or many.

    Keeps run-length encoded masks in host memory. When processes share the work, their results are gathered and an
    image that several of them predicted (samplers repeat images to give every process as many) counts once.

    The truth may list fewer categories than there are labels: as with pycocotools, what is found of the others neither
    helps nor harms, and it is in no result.

    Args:
        annotations: the untouched annotation json.
        category_ids: the COCO category id of each label.
        image_ids: the images that count, predicted or not (default: all of the json).
        iou_types: what is compared, masks (`segm`) or boxes (`bbox`).
        max_instances: the best detections of an image and class that count.

    Raises:
        DataError: the json can't be scored against, or lists none of the labels' categories.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    records: list[tuple[int, str]]

    def __init__(
        self,
        annotations: str | Path,
        category_ids: Sequence[int],
        *,
        image_ids: Sequence[int] | None = None,
        iou_types: Sequence[IouType] = ("segm", "bbox"),
        max_instances: int = 100,
    ) -> None:
        super().__init__()
        self.truth = GroundTruth(annotations, image_ids)
        self.category_ids = tuple(category_ids)
        self.iou_types = tuple(iou_types)
        self.max_instances = max_instances
        if not set(self.category_ids) & set(self.truth.classes):
            raise DataError(
                f"{self.truth.path}: lists the categories {list(self.truth.classes)}, but labels stand for "
                f"{list(self.category_ids)}: is it of another data set?"
            )
        for iou_type in self.iou_types:
            self.truth.annotations(iou_type)
        # An image's results as text: hashable, picklable and free to copy, all of which torchmetrics does with states.
        self.add_state("records", default=[], dist_reduce_fx=None)

    def update(self, instances: Sequence[Instances], frames: Sequence[Frame]) -> None:
        """Take the predictions of a batch, in photo pixels."""
        for found, frame in zip(instances, frames, strict=True):
            results = [
                result
                for result in coco_results(found, frame, self.category_ids)
                if result["category_id"] in self.truth.classes
            ]
            self.records.append((frame.image_id, json.dumps(results)))

    def compute(self) -> dict[str, dict[str, Any]]:
        """The twelve numbers by IoU type, and `per_class`: by IoU type, AP by class name."""
        results = self._collected()
        scores = {
            iou_type: score(self.truth, results, iou_type=iou_type, max_instances=self.max_instances)
            for iou_type in self.iou_types
        }
        summaries: dict[str, dict[str, Any]] = {iou_type: found.summary for iou_type, found in scores.items()}
        return {**summaries, "per_class": {iou_type: found.per_class for iou_type, found in scores.items()}}

    def results(self) -> list[Result]:
        """COCO results of all processes by image id; like `compute`, to be called on every process."""
        with self.sync_context(should_sync=self._to_sync, should_unsync=self._should_unsync):
            return self._collected()

    def _collected(self) -> list[Result]:
        first: dict[int, str] = {}
        for image_id, results in self.records:
            first.setdefault(image_id, results)
        return [result for image_id in sorted(first) for result in json.loads(first[image_id])]

    def _sync_dist(self, dist_sync_fn: Callable | None = None, process_group: Any | None = None) -> None:
        group = process_group or self.process_group
        gathered: list[Any] = [None] * torch.distributed.get_world_size(group)
        torch.distributed.all_gather_object(gathered, self.records, group=group)
        self.records = [record for records in gathered for record in records]

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = ()) -> Module:
        """Results stay in host memory wherever the metric goes."""
        return super()._apply(fn, exclude_state=(*exclude_state, "records"))


def _detection(truth: GroundTruth, index: int, result: Result, iou_type: IouType) -> dict[str, Any]:
    """A result as the evaluator takes it; `area` as in pycocotools' `loadRes`."""
    image_id, category_id = result["image_id"], result["category_id"]
    where = f"record {index} (image {image_id}, category {category_id})"
    if image_id not in truth.images:
        raise DataError(f"{where}: {truth.path} lists no such image; are these results of another data set or split?")
    if category_id not in truth.classes:
        raise DataError(f"{where}: {truth.path} lists no such category, it has {list(truth.classes)}")
    detection = {"id": index + 1, "iscrowd": 0, "ignore": 0, "score": result["score"]}
    detection |= {"image_id": image_id, "category_id": category_id}
    box = result.get("bbox") or (result.get("box") if iou_type == "bbox" else None)
    if iou_type == "segm" or not box:
        if not result.get("segmentation"):
            raise DataError(f"{where}: has no segmentation; score boxes with iou_type=bbox")
        rle = truth.encode(result["segmentation"], image_id, where)
        area = box[2] * box[3] if box else float(rle_codec.area(rle))
        return {**detection, "segmentation": rle, "bbox": box or rle_codec.toBbox(rle).tolist(), "area": area}
    return {**detection, "bbox": list(box), "area": box[2] * box[3]}


def _evaluate(
    truth: GroundTruth, detections: list[dict[str, Any]], iou_type: IouType, images: list[int], limits: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [IoU, recall level, class, area, limit] and recall [IoU, class, area, limit], −1 where undefined."""
    index = {
        "images": list(truth.images.values()),
        "categories": [{"id": category_id, "name": name} for category_id, name in truth.classes.items()],
    }
    with warnings.catch_warnings():
        # GroundTruth has said it already, and with the name of the file.
        warnings.filterwarnings("ignore", message="Found annotation id 0")
        wanted, found = (
            COCO({**index, "annotations": annotations}, print_function=_say_nothing)
            for annotations in (truth.annotations(iou_type), detections)
        )
    evaluator = COCOeval_faster(wanted, found, iou_type, print_function=_say_nothing, extra_calc=False)
    evaluator.params.imgIds = images
    evaluator.params.maxDets = limits
    evaluator.evaluate()
    evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])


def _say_nothing(*_: Any) -> None:
    """Takes what the library would log at a level that Hydra shows."""


def _summary(precision: np.ndarray, recall: np.ndarray, limits: list[int]) -> dict[str, float]:
    """COCO's twelve numbers in COCO's order (eleven when `max_instances` is 1 or 10: two of them share a name)."""
    most = limits[-1]
    return {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[_AP50, ..., 0, -1]),
        "AP75": _mean(precision[_AP75, ..., 0, -1]),
        **{f"AP{size}": _mean(precision[..., area, -1]) for area, size in enumerate("sml", start=1)},
        **{f"AR{limit}": _mean(recall[..., 0, limits.index(min(limit, most))]) for limit in (1, 10, most)},
        **{f"AR{size}": _mean(recall[..., area, -1]) for area, size in enumerate("sml", start=1)},
    }


def _mean(values: np.ndarray) -> float:
    """Mean of what is defined, −1 if nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
