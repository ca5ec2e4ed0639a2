"""The photos of the report, small: as they are, with the truth, and with what a run found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pycocotools.mask as rle_codec
import torch

from maskbench.data.coco import CocoFile, read_photo
from maskbench.data.datamodule import CocoDataModule
from maskbench.runtime.overlays import draw, fit, save
from maskbench.structures import Instances, Masks

SIDE = 256
"""Pixels of a thumbnail's longer side."""

SCORE = 0.3
"""What is drawn: fainter guesses count for AP, but would hide the picture."""


def write_thumbnails(folder: Path, data: CocoDataModule, found: Mapping[int, Instances]) -> None:
    """`photo-ID.png`, `truth-ID.png` and `pred-ID.png` of some photos of test, with what was found on each."""
    file = CocoFile(data.annotations("test"))
    for image_id, instances in found.items():
        photo = read_photo(data.image_path("test", image_id))
        drawn = {
            "photo": photo,
            "truth": draw(photo, truth(file, image_id, data.category_ids)),
            "pred": draw(photo, instances[instances.scores >= SCORE]),
        }
        for name, image in drawn.items():
            save(fit(image, SIDE), folder / f"{name}-{image_id}.png")


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
