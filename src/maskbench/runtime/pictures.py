"""The photos of the report, small: as they are, with the truth, and with what a run found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maskbench.data.coco import read_photo
from maskbench.data.datamodule import CocoDataModule
from maskbench.runtime.overlays import draw, fit, save
from maskbench.structures import Instances

SIDE = 256
"""Pixels of a thumbnail's longer side."""

SCORE = 0.3
"""What is drawn: fainter guesses count for AP, but would hide the picture."""


def write_thumbnails(folder: Path, data: CocoDataModule, found: Mapping[int, Instances]) -> None:
    """`photo-ID.png`, `truth-ID.png` and `pred-ID.png` of some photos of test, with what was found on each."""
    for image_id, instances in found.items():
        photo = read_photo(data.image_path("test", image_id))
        drawn = {
            "photo": photo,
            "truth": draw(photo, data.truth("test", image_id)),
            "pred": draw(photo, instances[instances.scores >= SCORE]),
        }
        for name, image in drawn.items():
            save(fit(image, SIDE), folder / f"{name}-{image_id}.png")
