"""The geometry of an evaluation, once: which detections overlap which truths, and by how much.

D detections   G truths   d g those that meet   by class, then image; detections of both by descending score

Matching (`evaluation.matching`) reads nothing else: whatever is asked later (sizes, crowding, intervals) compares no
mask a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float, Int64

from maskbench.errors import DataError
from maskbench.evaluation.boundary import boundary
from maskbench.evaluation.ground_truth import Geometry, GroundTruth
from maskbench.evaluation.results import Result

IouType = Literal["segm", "bbox", "boundary"]
"""What is compared: masks, boxes, or masks and their boundaries."""

LOWEST = 0.5
"""Overlaps below it match at none of COCO's thresholds and are not kept."""


@dataclass(frozen=True)
class Objects:
    """What is to be found, or what was found, a row each.

    `image` and `label` are places in `Overlaps.images` and `Overlaps.classes`, `area` is in pixels, `shapes` are run
    lengths or boxes.
    """

    image: Int64[np.ndarray, " N"]
    label: Int64[np.ndarray, " N"]
    area: Float[np.ndarray, " N"]
    shapes: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Meeting:
    """Detections and truths of one image and class that overlap: their rows, and the overlap of each with each.

    Both keep the order that `Overlaps` has them in; detections and truths without an overlap of `LOWEST` are left out.
    """

    detections: Int64[np.ndarray, " d"]
    truths: Int64[np.ndarray, " g"]
    iou: Float[np.ndarray, "d g"]


@dataclass(frozen=True)
class Crossing:
    """Detections and truths of one image and of any class, crowds left out, as far as they overlap at all.

    `inside` is the share of the detection that lies in the truth.
    """

    detections: Int64[np.ndarray, " d"]
    truths: Int64[np.ndarray, " g"]
    iou: Float[np.ndarray, "d g"]
    inside: Float[np.ndarray, "d g"]

    @property
    def covered(self) -> Float[np.ndarray, "d g"]:
        """The share of the truth that the detection covers, which follows from the other two."""
        there = self.iou > 0
        iou, inside = np.where(there, self.iou, 1), np.where(there, self.inside, 1)
        return np.where(there, 1 / (1 / iou - 1 / inside + 1), 0.0)


@dataclass(frozen=True)
class Overlaps:
    """Detections and truths with the overlaps among them.

    Attributes:
        images, classes: ids, ascending.
        names: of the classes.
        detections, truths: sorted by class and image, detections of an image and class by descending score (equal
            scores as they came).
        score: of each detection.
        rank: place of each detection among those of its image and class, from 0.
        excused: detections that may find nothing: their class is not annotated exhaustively in their image (LVIS).
        crowd: truths that are regions of uncounted objects; an overlap with one is a share of the detection.
        ignored: truths that may be found without gain or harm: crowds, and in LVIS what is marked so.
        void: truths that count as missed even where they are found (annotation id 0, as in pycocotools).
        meetings: where detections meet truths of their class.
        crossings: where those of an image meet whatever their classes; empty unless asked for.
    """

    images: tuple[int, ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    detections: Objects
    truths: Objects
    score: Float[np.ndarray, " D"]
    rank: Int64[np.ndarray, " D"]
    excused: Bool[np.ndarray, " D"]
    crowd: Bool[np.ndarray, " G"]
    ignored: Bool[np.ndarray, " G"]
    void: Bool[np.ndarray, " G"]
    meetings: tuple[Meeting, ...]
    crossings: tuple[Crossing, ...] = ()


def overlaps(
    truth: GroundTruth,
    results: Sequence[Result],
    *,
    iou_type: IouType = "segm",
    image_ids: Iterable[int] | None = None,
    max_instances: int | None = None,
    across_classes: bool = False,
) -> Overlaps:
    """Overlaps of COCO results with the annotations.

    Boundary IoU is the smaller of the masks' IoU and that of their boundaries (Cheng et al., CVPR 2021, section 4.2);
    with a crowd it is the masks' alone, as in the authors' tool. Of federated annotations (LVIS: Gupta et al., CVPR
    2019, section 2) detections are left out whose class was not looked for in their image, and the limit is one of an
    image over all classes, as in the tool of LVIS.

    Args:
        truth: the annotations.
        results: COCO results, possibly none.
        iou_type: what is compared.
        image_ids: the images that count (default: all that `truth` has).
        max_instances: the best detections of an image and class that count (default: COCO's 100; of federated
            annotations the best of an image, LVIS's 300).
        across_classes: compare those of other classes as well.

    Raises:
        DataError: a result or an annotation can't be compared; the message names it.
    """
    images = truth.known(truth.images if image_ids is None else image_ids)
    geometry = geometry_of(iou_type)
    limit = truth.max_instances if max_instances is None else max_instances
    place = {image: index for index, image in enumerate(images)}
    label = {category: index for index, category in enumerate(truth.classes)}
    wishes = [row for row in truth.annotations(geometry) if row["image_id"] in place]
    finds = [_detection(truth, index, result, geometry) for index, result in enumerate(results)]
    finds = [row for row in finds if row["image_id"] in place]
    if truth.federated:
        wishes, finds = _judged(truth, wishes, _best_of_each_image(finds, limit))
    wanted, claimed = (_Rows(rows, place, label, geometry) for rows in (wishes, finds))
    claimed.rank_by_score(limit)
    found, known, crowd = claimed.objects, wanted.objects, wanted.column("iscrowd", bool)
    return Overlaps(
        images=tuple(images),
        classes=tuple(truth.classes),
        names=tuple(truth.classes.values()),
        detections=found,
        truths=known,
        score=claimed.column("score", float),
        rank=claimed.rank,
        excused=np.array([truth.excuses(row["image_id"], row["category_id"]) for row in claimed.records], dtype=bool),
        crowd=crowd,
        ignored=wanted.column("ignore", bool),
        void=wanted.column("id", np.int64) == 0,
        meetings=tuple(_meetings(found, known, crowd, len(images), edges=iou_type == "boundary")),
        crossings=tuple(_crossings(found, known, crowd)) if across_classes else (),
    )


def geometry_of(iou_type: IouType) -> Geometry:
    """What of an annotation is looked at to compare it so."""
    return "bbox" if iou_type == "bbox" else "segm"


class _Rows:
    """Records of annotations or results, by class and image, in their order otherwise."""

    def __init__(
        self, records: list[dict[str, Any]], place: dict[int, int], label: dict[int, int], geometry: Geometry
    ) -> None:
        image = np.array([place[record["image_id"]] for record in records], dtype=np.int64)
        classes = np.array([label[record["category_id"]] for record in records], dtype=np.int64)
        self.records, self.shape = records, {"segm": "segmentation", "bbox": "bbox"}[geometry]
        self.group = classes * len(place) + image
        self.width = len(place)
        self.rank = np.zeros(len(records), dtype=np.int64)
        self._take(np.argsort(self.group, kind="stable"))

    def rank_by_score(self, limit: int) -> None:
        """Sort each group by score, the highest first, and drop all but its first `limit`."""
        self._take(np.lexsort((-self.column("score", float), self.group)))
        begins = np.searchsorted(self.group, self.group, side="left")
        self.rank = np.arange(len(self.group)) - begins
        self._take(np.flatnonzero(self.rank < limit))

    def _take(self, rows: np.ndarray) -> None:
        self.records = [self.records[row] for row in rows]
        self.group, self.rank = self.group[rows], self.rank[rows]

    def column(self, key: str, kind: Any) -> np.ndarray:
        return np.array([record[key] for record in self.records], dtype=kind)

    @property
    def objects(self) -> Objects:
        shapes = tuple(record[self.shape] for record in self.records)
        return Objects(self.group % self.width, self.group // self.width, self.column("area", float), shapes)


def _meetings(found: Objects, known: Objects, crowd: np.ndarray, images: int, *, edges: bool) -> Iterator[Meeting]:
    compare = _boundary_iou if edges else _iou
    groups = [by_key(objects.label * images + objects.image) for objects in (found, known)]
    for group, rows in groups[0].items():
        if group in groups[1]:
            there = groups[1][group]
            iou = compare(_shapes(found, rows), _shapes(known, there), crowd[there].tolist())
            mine, theirs = _of_any(iou >= LOWEST)
            if len(mine):
                yield Meeting(rows[mine], there[theirs], iou[np.ix_(mine, theirs)])


def _crossings(found: Objects, known: Objects, crowd: np.ndarray) -> Iterator[Crossing]:
    groups = [by_key(objects.image) for objects in (found, known)]
    for image, rows in groups[0].items():
        there = groups[1].get(image, np.zeros(0, dtype=np.int64))
        there = there[~crowd[there]]
        if len(there):
            shapes = _shapes(found, rows), _shapes(known, there)
            iou = _iou(*shapes, [0] * len(there))
            mine, theirs = _of_any(iou > 0)
            if len(mine):
                # what a crowd is compared by is the share of the detection
                inside = _iou(*shapes, [1] * len(there))
                part = np.ix_(mine, theirs)
                yield Crossing(rows[mine], there[theirs], iou[part], inside[part])


def by_key(keys: Int64[np.ndarray, " N"]) -> dict[int, Int64[np.ndarray, " n"]]:
    """The rows of each key, in their order; no keys have no rows."""
    order = np.argsort(keys, kind="stable")
    names, begins = np.unique(keys[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, begins[1:]), strict=False))


def _shapes(objects: Objects, rows: np.ndarray) -> list[Any]:
    return [objects.shapes[row] for row in rows.tolist()]


def _of_any(near: Bool[np.ndarray, "d g"]) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " c"]]:
    """The r rows and c columns with something in them."""
    return np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))


def _iou(found: list[Any], known: list[Any], crowd: list[Any]) -> Float[np.ndarray, "d g"]:
    return np.asarray(rle_codec.iou(found, known, crowd), dtype=float)


def _boundary_iou(found: list[Any], known: list[Any], crowd: list[Any]) -> Float[np.ndarray, "d g"]:
    """The smaller of both overlaps; boundaries are drawn only of masks that overlap enough for it to matter."""
    iou = _iou(found, known, crowd)
    mine, theirs = _of_any((iou >= LOWEST) & ~np.asarray(crowd, dtype=bool))
    if len(mine):
        drawn = [boundary(found[row]) for row in mine], [boundary(known[row]) for row in theirs]
        part = np.ix_(mine, theirs)
        iou[part] = np.minimum(iou[part], _iou(*drawn, [0] * len(theirs)))
    return iou


def _judged(
    truth: GroundTruth, wishes: list[dict[str, Any]], finds: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Truths, and detections of classes that were looked for in their image; the tool of LVIS knows no empty masks."""
    wishes, finds = ([row for row in rows if row["area"] > 0] for rows in (wishes, finds))
    present = {(row["image_id"], row["category_id"]) for row in wishes}
    pairs = [(row["image_id"], row["category_id"]) for row in finds]
    return wishes, [row for row, pair in zip(finds, pairs, strict=True) if pair in present or truth.lacks(*pair)]


def _best_of_each_image(found: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The records of highest score of each image, equal scores as they came, in the order that they had."""
    image, score = (np.array([row[key] for row in found]) for key in ("image_id", "score"))
    order = np.lexsort((-score, image))
    rank = np.arange(len(found)) - np.searchsorted(image[order], image[order], side="left")
    return [found[row] for row in np.sort(order[rank < limit])]


def _detection(truth: GroundTruth, index: int, result: Result, geometry: Geometry) -> dict[str, Any]:
    """A result with what is compared; `area` as in pycocotools' `loadRes`."""
    image_id, category_id = result["image_id"], result["category_id"]
    where = f"record {index} (image {image_id}, category {category_id})"
    if image_id not in truth.images:
        raise DataError(f"{where}: {truth.path} lists no such image; are these results of another data set or split?")
    if category_id not in truth.classes:
        raise DataError(f"{where}: {truth.path} lists no such category, it has {list(truth.classes)}")
    detection = {"image_id": image_id, "category_id": category_id, "score": result["score"]}
    box = result.get("bbox") or (result.get("box") if geometry == "bbox" else None)
    if geometry == "bbox" and box:
        return {**detection, "bbox": list(box), "area": box[2] * box[3]}
    if not result.get("segmentation"):
        raise DataError(f"{where}: has no segmentation; score boxes with iou_type=bbox")
    rle = truth.encode(result["segmentation"], image_id, where)
    shape = {"segmentation": rle} if geometry == "segm" else {"bbox": rle_codec.toBbox(rle).tolist()}
    return {**detection, **shape, "area": box[2] * box[3] if box else float(rle_codec.area(rle))}
