"""Small data sets that can be scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import torch

from maskbench.structures import Frame, Instances, Masks

Box = tuple[int, int, int, int]


def encode(mask: np.ndarray) -> dict[str, Any]:
    rle = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def rectangle(box: Box, size: tuple[int, int]) -> np.ndarray:
    x, y, width, height = box
    mask = np.zeros(size, dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


@pytest.fixture
def annotation_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an annotation json: `objects` are (image, category, [x, y, width, height]) or that and `crowd`."""

    def write(objects: Sequence[tuple], images: Sequence[int] = (7, 11), categories: Sequence[int] = (3, 8)) -> Path:
        annotations = [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "segmentation": encode(rectangle(box, (40, 40))),
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": int(bool(crowd)),
            }
            for number, (image, category, box, *crowd) in enumerate(objects, start=5)
        ]
        path = tmp_path / "annotations.json"
        content = {
            "images": [{"id": image, "height": 40, "width": 40} for image in images],
            "categories": [{"id": category, "name": f"class {category}"} for category in categories],
            "annotations": annotations,
        }
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def result() -> Callable[..., dict[str, Any]]:
    """A COCO result: a rectangle in a 40 × 40 image."""

    def make(image: int, category: int, drawn: Box, score: float = 0.9, **more: Any) -> dict[str, Any]:
        mask = encode(rectangle(drawn, (40, 40)))
        return {"image_id": image, "category_id": category, "segmentation": mask, "score": score, **more}

    return make


@pytest.fixture
def predict() -> Callable[..., tuple[Instances, Frame]]:
    """Instances of one 40 × 40 image: `objects` are (label, [x, y, width, height], score)."""

    def make(image: int, objects: Sequence[tuple[int, Box, float]]) -> tuple[Instances, Frame]:
        masks = [torch.from_numpy(rectangle(box, (40, 40))) for _, box, _ in objects]
        boxes = [[x, y, x + width, y + height] for _, (x, y, width, height), _ in objects]
        instances = Instances(
            masks=Masks(torch.stack(masks) if masks else torch.zeros((0, 40, 40), dtype=torch.bool)),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([label for label, _, _ in objects], dtype=torch.long),
            scores=torch.tensor([score for _, _, score in objects]),
        )
        return instances, Frame(image, (40, 40), (40, 40))

    return make


@pytest.fixture
def random_scene() -> Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]:
    """An annotation json and results for it, with crowds, ties in score, empty masks and every size of object."""

    def draw(seed: int, images: int = 4, objects: int = 6) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rng = np.random.default_rng(seed)
        categories = [int(number) for number in rng.choice(50, 3, replace=False) + 1]
        content: dict[str, Any] = {"images": [], "annotations": [], "info": {}}
        content["categories"] = [{"id": category, "name": f"class {category}"} for category in categories]
        results: list[dict[str, Any]] = []
        for image in rng.choice(1000, images, replace=False) + 1:
            size = tuple(int(side) for side in rng.integers(20, 160, 2))
            content["images"].append({"id": int(image), "height": size[0], "width": size[1]})
            for _ in range(rng.integers(0, objects + 1)):
                _draw_object(rng, content, results, int(image), size, int(rng.choice(categories)))
        return content, results

    return draw


def _draw_object(
    rng: np.random.Generator, content: dict, results: list, image: int, size: tuple[int, int], category: int
) -> None:
    corner = rng.integers(0, size[::-1])
    mask = rectangle((*corner, *rng.integers(1, size[::-1])), size)
    rle = encode(mask)
    content["annotations"].append(
        {
            "id": 5 + 2 * len(content["annotations"]),
            "image_id": image,
            "category_id": category,
            "segmentation": rle,
            "bbox": rle_codec.toBbox(rle).tolist(),
            # 32² and 96² stand on the border of two sizes, to which both lay claim.
            "area": float(rng.choice([mask.sum(), 32**2, 96**2], p=[0.8, 0.1, 0.1])),
            "iscrowd": int(rng.random() < 0.15),
        }
    )
    for _ in range(rng.integers(0, 4)):
        found = np.roll(mask, rng.integers(-3, 4, 2), (0, 1)) if rng.random() < 0.9 else np.zeros(size, dtype=bool)
        guess = category if rng.random() < 0.8 else content["categories"][0]["id"]
        score = round(float(rng.random()), 1)
        results.append({"image_id": image, "category_id": guess, "segmentation": encode(found), "score": score})
