"""The photos of the report, small: as they are, with the truth, and with what a run found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pycocotools.mask as rle_codec
import torch

from maskbench.data.coco import CocoFile, read_photo
from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.results import Result
from maskbench.runtime.overlays import draw, fit, save
from maskbench.structures import RLE, Instances, Masks, Size

SIDE = 256
"""Pixels of a thumbnail's longer side."""

SCORE = 0.3
"""What is drawn: fainter guesses count for AP, but would hide the picture."""


SHOWN = 6
"""Photos of which every run keeps a picture: the same for every method."""


def write_thumbnails(folder: Path, data: CocoDataModule, results: Sequence[Result]) -> None:
    """`photo-ID.png`, `truth-ID.png` and `pred-ID.png` of the first photos of test, by what was found on each."""
    file = CocoFile(data.annotations("test"))
    for image_id in sorted(data.image_ids("test"))[:SHOWN]:
        photo = read_photo(data.image_path("test", image_id))
        own = [result for result in results if result["image_id"] == image_id and result["score"] >= SCORE]
        drawn = {
            "photo": photo,
            "truth": draw(photo, truth(file, image_id, data.category_ids)),
            "pred": draw(photo, found(own, file.records[image_id].size, data.category_ids)),
        }
        for name, image in drawn.items():
            save(fit(image, SIDE), folder / f"{name}-{image_id}.png")


def found(results: Sequence[Result], size: Size, category_ids: tuple[int, ...]) -> Instances:
    """What COCO results say of one photo, in its pixels, the best first."""
    ranked = sorted(results, key=lambda result: -result["score"])
    masks = [RLE(size=list(size), counts=result["segmentation"]["counts"].encode()) for result in ranked]
    boxes = torch.tensor([result["box"] for result in ranked], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # [x, y, width, height] → corners
    labels = torch.tensor([category_ids.index(result["category_id"]) for result in ranked], dtype=torch.long)
    return Instances(Masks(masks, size), boxes, labels, torch.tensor([result["score"] for result in ranked]))


def truth(file: CocoFile, image_id: int, category_ids: tuple[int, ...]) -> Instances:
    """The objects of an image in photo pixels, as the annotation file has them; crowd regions left out."""
    size = file.records[image_id].size
    objects = [annotation for annotation in file.annotations(image_id) if not annotation.crowd]
    runs = [{"size": list(size), "counts": annotation.runs.tolist()} for annotation in objects]
    masks = rle_codec.frPyObjects(runs, *size) if runs else []
    boxes = torch.from_numpy(rle_codec.toBbox(masks)).float() if runs else torch.zeros((0, 4))
    boxes[:, 2:] += boxes[:, :2]  # [x, y, width, height] → corners
    labels = torch.tensor([category_ids.index(annotation.category_id) for annotation in objects], dtype=torch.long)
    return Instances(Masks(masks, size), boxes, labels, torch.ones(len(objects)))
