"""Small exports as the annotation tools write them: their folders, their json, their kinds of ids and file names."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
BOXES = ((4, 6, 24, 30), (30, 10, 58, 40))
"""Two objects of each photo: left, top, right, bottom."""


def photo(number: int) -> Image.Image:
    """Noise with two bright rectangles."""
    pixels = np.random.default_rng(number).integers(0, 90, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for left, top, right, bottom in BOXES:
        pixels[top:bottom, left:right] += 120
    return Image.fromarray(pixels)


def corners(box: Sequence[int]) -> list[list[float]]:
    left, top, right, bottom = map(float, box)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def flat(box: Sequence[int]) -> list[float]:
    return [value for corner in corners(box) for value in corner]


def _annotation(number: int, image_id: int, category_id: int, box: Sequence[int]) -> dict[str, Any]:
    left, top, right, bottom = box
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": [flat(box)],
        "area": float((right - left) * (bottom - top)),
        "bbox": [left, top, right - left, bottom - top],
    }


def _save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(number).save(path)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def cvat(root: Path, subsets: Sequence[str] = ("default",), images: str = "images/{}", photos: int = 6) -> Path:
    """COCO 1.0 of CVAT: subsets by name, images in folders of their own, ids from 1, attributes, masks as crowd RLE."""
    for subset in subsets:
        content: dict[str, Any] = {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
            "categories": [
                {"id": 1, "name": "coin", "supercategory": ""},
                {"id": 2, "name": "key", "supercategory": ""},
            ],
            "images": [],
            "annotations": [],
        }
        for number in range(1, photos + 1):
            name = f"tray {number % 2}/{number:03}.png"
            _save(root / images.format(subset) / name, number)
            size = {"width": WIDTH, "height": HEIGHT}
            urls = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0}
            content["images"].append({"id": number, **size, "file_name": name, **urls})
            for category_id, box in enumerate(BOXES, 1):
                own = _annotation(len(content["annotations"]) + 1, number, category_id, box)
                content["annotations"].append({**own, "iscrowd": 0, "attributes": {"occluded": False}})
        runs = {"counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)], "size": [HEIGHT, WIDTH]}
        painted = _annotation(len(content["annotations"]) + 1, 1, 1, (0, 0, 1, HEIGHT))
        content["annotations"].append(
            {**painted, "segmentation": runs, "iscrowd": 1, "attributes": {"occluded": False}}
        )
        _write(root / "annotations" / f"instances_{subset}.json", content)
    return root


def label_studio(root: Path, windows: bool = False, photos: int = 6) -> Path:
    """COCO of Label Studio: result.json, names with their folder, all ids from 0, no `iscrowd` (as older versions)."""
    content: dict[str, Any] = {
        "images": [],
        "categories": [{"id": 0, "name": "coin"}, {"id": 1, "name": "key"}],
        "annotations": [],
        "info": {"year": 2024, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
    }
    for number in range(photos):
        name = f"{number:08x}-tray_{number}.png"
        _save(root / "images" / name, number)
        named = f"images\\{name}" if windows else f"images/{name}"
        content["images"].append({"width": WIDTH, "height": HEIGHT, "id": number, "file_name": named})
        for category_id, box in enumerate(BOXES):
            own = _annotation(len(content["annotations"]), number, category_id, box)
            content["annotations"].append({**own, "ignore": 0})
    root.mkdir(parents=True, exist_ok=True)
    (root / "result.json").write_text(json.dumps(content, indent=2).replace("/", r"\/"), encoding="utf-8")
    return root


def roboflow(root: Path, splits: Sequence[str] = ("train", "valid", "test"), photos: int = 4) -> Path:
    """COCO Segmentation of Roboflow: a folder a split, ids from 0 in each, a root class that no object has."""
    for place, split in enumerate(splits):
        content: dict[str, Any] = {
            "info": {"year": "2024", "version": "1", "description": "Exported from roboflow.com", "contributor": ""},
            "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
            "categories": [
                {"id": 0, "name": "trays", "supercategory": "none"},
                {"id": 1, "name": "coin", "supercategory": "trays"},
                {"id": 2, "name": "key", "supercategory": "trays"},
            ],
            "images": [],
            "annotations": [],
        }
        for number in range(photos):
            name = f"tray-{number}_png.rf.{10 * place + number:032x}.jpg"
            _save(root / split / name, 10 * place + number)
            size = {"height": HEIGHT, "width": WIDTH}
            content["images"].append(
                {"id": number, "license": 1, "file_name": name, **size, "date_captured": "2024-05-01T10:00:00+00:00"}
            )
            for category_id, box in enumerate(BOXES, 1):
                own = _annotation(len(content["annotations"]), number, category_id, box)
                content["annotations"].append({**own, "iscrowd": 0})
        _write(root / split / "_annotations.coco.json", content)
    (root / "README.dataset.txt").write_text("trays\n")
    return root


def labelme2coco(root: Path, photos: int = 6) -> Path:
    """What labelme's own converter writes: annotations.json and JPEGImages, ids from 0, no areas of photos without."""
    content: dict[str, Any] = {
        "info": {"description": None, "url": None, "version": None, "year": 2024, "contributor": None},
        "licenses": [{"url": None, "id": 0, "name": None}],
        "type": "instances",
        "images": [],
        "categories": [
            {"supercategory": None, "id": 0, "name": "coin"},
            {"supercategory": None, "id": 1, "name": "key"},
        ],
        "annotations": [],
    }
    for number in range(photos):
        name = f"JPEGImages/{number:03}.jpg"
        _save(root / name, number)
        size = {"height": HEIGHT, "width": WIDTH}
        about = {"license": 0, "url": None, "file_name": name, **size, "date_captured": None, "id": number}
        content["images"].append(about)
        for category_id, box in enumerate(BOXES):
            own = _annotation(len(content["annotations"]), number, category_id, box)
            content["annotations"].append({**own, "iscrowd": 0})
    _write(root / "annotations.json", content)
    return root


def png(image: Image.Image) -> str:
    """As labelme holds pictures in its json."""
    with io.BytesIO() as buffer:
        image.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


def shape(label: str, points: list[list[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """A shape of labelme."""
    about = {"group_id": None, "description": "", "shape_type": kind, "flags": {}, "mask": None}
    return {"label": label, "points": points, **about, **more}


def drawing(path: Path, number: int, shapes: list[dict[str, Any]], within: bool = False, **more: Any) -> Path:
    """A file of labelme, with its photo beside it or within."""
    if not within:
        _save(path.with_suffix(".png"), number)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": path.with_suffix(".png").name,
        "imageData": png(photo(number)) if within else None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    _write(path, {**content, **more})
    return path


def labelme(root: Path, photos: int = 6) -> Path:
    """A folder that labelme has saved to: every second photo within its json, a polygon and a painted mask each."""
    (left, top, right, bottom), key = BOXES
    mask = png(Image.new("1", (right - left, bottom - top), 1))
    for number in range(photos):
        painted = shape("coin", [[left, top], [right - 1, bottom - 1]], "mask", mask=mask)
        shapes = [painted, shape("key", corners(key))]
        drawing(root / f"tray {number}.json", number, shapes, within=number % 2 == 1)
    return root
