"""Small COCO folders, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Folder = Callable[..., Path]


def rectangle(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    """A polygon whose mask is rows top … bottom−1 and columns left … right−1."""
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def content() -> dict[str, Any]:
    """Three photos of 20 x 30 pixels with ids 11, 7 and 30: two objects and a crowd, nothing, one object."""
    image = {"height": 20, "width": 30}
    return {
        "images": [
            {"id": 11, "file_name": "b.png", **image},
            {"id": 7, "file_name": "a.png", **image},
            {"id": 30, "file_name": "c.png", **image},
        ],
        "annotations": [
            {"id": 5, "image_id": 11, "category_id": 9, "segmentation": rectangle(2, 3, 8, 10), "iscrowd": 0},
            {"id": 9, "image_id": 11, "category_id": 4, "segmentation": rectangle(5, 5, 12, 20), "iscrowd": 0},
            {
                "id": 12,
                "image_id": 11,
                "category_id": 4,
                "segmentation": {"size": [20, 30], "counts": [0, 40, 560]},
                "iscrowd": 1,
            },
            {"id": 17, "image_id": 30, "category_id": 9, "segmentation": rectangle(0, 0, 20, 30), "iscrowd": 0},
        ],
        "categories": [{"id": 9, "name": "star"}, {"id": 4, "name": "disc"}],
    }


@pytest.fixture
def write(tmp_path: Path, content: dict[str, Any]) -> Folder:
    """Writes `content` (or another one) as a COCO folder with random photos, train and val alike."""

    def writer(content: dict[str, Any] = content, name: str = "set") -> Path:
        root = tmp_path / name
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "images").mkdir(exist_ok=True)
        for split in ("train", "val"):
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        for image in content["images"]:
            pixels = np.random.default_rng(image["id"]).integers(0, 256, (image["height"], image["width"], 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / image["file_name"])
        return root

    return writer
