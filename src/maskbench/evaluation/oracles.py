"""Predictions of which a part has been put right, for what the rest is worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec

from maskbench.evaluation.errors import ENOUGH
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.results import Result


def with_true_classes(truth: GroundTruth, results: Sequence[Result]) -> list[Result]:
    """The same masks and scores, each of the class of the true object that it overlaps most, if it overlaps any.

    What is of another class then and would only find an object (IoU 0.5) that a better one has found is left out: with
    the true classes it would not have been told apart from the other.

    Args:
        truth: whose crowd regions have no say.
        results: COCO results with masks, in any order.

    Returns:
        Image by image, those of an image in their order.
    """
    known: dict[int, list[dict[str, Any]]] = {}
    for annotation in truth.annotations("segm"):
        if not annotation["iscrowd"]:
            known.setdefault(annotation["image_id"], []).append(annotation)
    named: list[Result] = []
    for image_id, group in groupby(sorted(results, key=_image), key=_image):
        own = list(group)
        named += _renamed(truth, own, known[image_id]) if image_id in known else own
    return named


def _image(result: Result) -> int:
    return int(result["image_id"])


def _renamed(truth: GroundTruth, results: list[Result], known: list[dict[str, Any]]) -> list[Result]:
    where = f"image {known[0]['image_id']}"
    masks = [truth.encode(result["segmentation"], result["image_id"], where) for result in results]
    iou = np.asarray(rle_codec.iou(masks, [annotation["segmentation"] for annotation in known], [0] * len(known)))
    named: dict[int, Result] = {}
    found: set[int] = set()
    for row in sorted(range(len(results)), key=lambda row: -results[row]["score"]):
        place = int(iou[row].argmax())
        category = known[place]["category_id"] if iou[row, place] > 0 else results[row]["category_id"]
        finds = iou[row, place] >= ENOUGH
        if category != results[row]["category_id"] and finds and place in found:
            continue
        found |= {place} if finds else set()
        named[row] = {**results[row], "category_id": category}
    return [named[row] for row in sorted(named)]
