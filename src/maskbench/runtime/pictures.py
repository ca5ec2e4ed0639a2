"""The photos of the report, small, with what is on them and what a run found, as outlines that can be asked.

N objects of a photo
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool

from maskbench.atomic import replacing, writing
from maskbench.data.coco import CocoFile
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.photos import read_photo
from maskbench.data.runs import run_lengths
from maskbench.evaluation.deployment import f1_by_image
from maskbench.evaluation.matches import Matches
from maskbench.evaluation.results import Result
from maskbench.runtime.overlays import fit
from maskbench.structures import RLE
from maskbench.study.runs import PHOTOS

SIDE, QUALITY = 256, 80
"""Pixels of a thumbnail's longer side, and how little JPEG leaves out of it."""

GRID = 512
"""Outlines are told apart on a grid of at most so many points a side."""

SHOWN = 200
"""Photos that every run keeps, the first ones of test: the same for every method."""

MOST = 400
"""Outlines of a photo, the best."""

SCORE = 0.3
"""What is drawn of runs without a deployment point: fainter guesses count for AP, but would hide the picture."""


def write_thumbnails(
    folder: Path,
    data: CocoDataModule,
    results: Sequence[Result],
    matches: Matches | None = None,
    threshold: float | None = None,
) -> None:
    """`ID.jpg` of the first photos of test, and `photos.json.gz`: what is on each and what was found.

    Args:
        folder: of the thumbnails; what was in it is replaced.
        data: the data set.
        results: what was found on its test split.
        matches: of masks, for the F1 of each photo; without them it is unknown.
        threshold: the score of what is drawn and counted; `SCORE` when None.
    """
    at, file = SCORE if threshold is None else threshold, data.file("test")
    names = file.categories
    found: dict[int, list[Result]] = {image_id: [] for image_id in sorted(data.image_ids("test"))[:SHOWN]}
    for result in results:
        if result["image_id"] in found and result["score"] >= at:
            found[result["image_id"]].append(result)
    worth = f1_by_image(matches, at) if matches else {}
    photos = {}
    for image_id, own in found.items():
        size = file.records[image_id].size
        photo = fit(read_photo(data.image_path("test", image_id)), SIDE)
        encoded = cv2.imencode(".jpg", photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        with replacing(folder / f"{image_id}.jpg") as part:
            part.write_bytes(encoded.tobytes())
        photos[image_id] = {**_outlines(file, image_id, own, names, size), "f1": worth.get(image_id)}
    content = json.dumps({"score": at, "photos": photos}, separators=(",", ":")).encode()
    with replacing(folder / PHOTOS) as part:
        part.write_bytes(gzip.compress(content, mtime=0))
    with writing(folder):
        for earlier in folder.iterdir():
            if earlier.name not in (PHOTOS, *(f"{image_id}.jpg" for image_id in photos)):
                earlier.unlink()


def _outlines(
    file: CocoFile, image_id: int, found: Sequence[Result], names: dict[int, str], size: tuple[int, int]
) -> dict[str, Any]:
    """Height and width of the grid, and on it the outlines of the truth and of what was found, with what they are."""
    step = -(-max(size) // GRID)
    objects = [annotation for annotation in file.annotations(image_id) if not annotation.crowd]
    truths: list[RLE] = [_encoded(annotation.runs, size) for annotation in objects]
    best = sorted(found, key=lambda result: -result["score"])[:MOST]
    masks = [RLE(size=list(size), counts=result["segmentation"]["counts"].encode()) for result in best]
    iou = np.asarray(rle_codec.iou(masks, truths, [0] * len(truths))).reshape(len(masks), len(truths))
    return {
        "size": [-(-side // step) for side in size],
        "truth": [
            {"name": names[annotation.category_id], "path": outline(mask, step)}
            for annotation, mask in zip(objects, truths, strict=True)
        ],
        "found": [
            {
                "name": names[result["category_id"]],
                "score": round(result["score"], 3),
                "iou": round(float(overlap.max(initial=0)), 3),
                "path": outline(mask, step),
            }
            for result, mask, overlap in zip(best, masks, iou, strict=True)
        ],
    }


def _encoded(runs: np.ndarray, size: tuple[int, int]) -> RLE:
    return rle_codec.frPyObjects([{"size": list(size), "counts": runs.tolist()}], *size)[0]


def outline(rle: RLE, step: int = 1) -> str:
    """The outer contours of a mask as an SVG path; empty for an empty mask.

    Args:
        rle: at photo size.
        step: only every so many pixels are looked at, each way, and are the unit of the path: no photo is too large.
    """
    mask, left, top = _sampled(rle, step)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top))
    parts = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.6, closed=True)[:, 0]
        parts.append("M" + "L".join(f"{x} {y}" for x, y in points.tolist()) + "Z")
    return "".join(parts)


def _sampled(rle: RLE, step: int) -> tuple[Bool[np.ndarray, "h w"], int, int]:
    """Every so many pixels of the mask inside its box, and where on this grid the box begins (left, top)."""
    x, y, width, height = (int(side) for side in rle_codec.toBbox(rle))
    left, top = -(-x // step), -(-y // step)
    columns, rows = np.arange(left, -(-(x + width) // step)), np.arange(top, -(-(y + height) // step))
    ends = np.cumsum(run_lengths({**rle}, (rle["size"][0], rle["size"][1])))
    places = (columns * step * rle["size"][0])[None] + (rows * step)[:, None]
    return np.searchsorted(ends, places, side="right") % 2 == 1, left, top
