"""Predictions as COCO results: one record an instance, masks run-length encoded at photo size.

A record holds `image_id`, `category_id`, `segmentation` (`size` [H, W] and `counts` as text), `score` and `box`, the
method's own box as [x, y, width, height]. It is called `box` and not `bbox`, because pycocotools takes the area of a
mask from `bbox` when there is one, and AP by size changes.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskbench.atomic import replacing
from maskbench.errors import DataError
from maskbench.evaluation.ground_truth import is_box, is_number
from maskbench.structures import Frame, Instances

Result = dict[str, Any]
"""One record of a COCO results file."""

_GZIP_MAGIC = b"\x1f\x8b"
LEAST = 2**28
"""Bytes that gzipped results may always have."""


def coco_results(instances: Instances, frame: Frame, category_ids: Sequence[int]) -> list[Result]:
    """The instances of one image as COCO results, in their order.

    Args:
        instances: predictions in photo pixels.
        frame: where they come from.
        category_ids: the COCO category id of each label.

    Raises:
        ValueError: the masks are not as large as the photo, or a label has no category.
    """
    if instances.masks.size != tuple(frame.photo):
        raise ValueError(
            f"image {frame.image_id}: masks are {instances.masks.size} pixels, but the photo is {tuple(frame.photo)}"
        )
    labels = instances.labels.tolist()
    if labels and not 0 <= min(labels) <= max(labels) < len(category_ids):
        raise ValueError(
            f"image {frame.image_id}: labels run from {min(labels)} to {max(labels)}, "
            f"but there are {len(category_ids)} categories"
        )
    rows = zip(labels, instances.scores.tolist(), instances.boxes.tolist(), instances.masks.rle(), strict=True)
    return [
        {
            "image_id": int(frame.image_id),
            "category_id": int(category_ids[label]),
            "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
            "score": score,
            "box": [left, top, right - left, bottom - top],
        }
        for label, score, (left, top, right, bottom), rle in rows
    ]


def write_predictions(path: str | Path, results: Sequence[Result]) -> None:
    """Write COCO results, compressed if the name ends in `.gz`: whole or not at all, equal results as equal bytes."""
    path = Path(path)
    content = json.dumps(list(results), separators=(",", ":"), allow_nan=False).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with replacing(path) as part:
        part.write_bytes(content)


def read_predictions(path: str | Path) -> list[Result]:
    """Read COCO results from json or gzipped json (told by content, not by name).

    Raises:
        DataError: the file can't be read, is no list of records, or a record lacks a key or holds a wrong type.
    """
    try:
        content = Path(path).read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = _unpacked(content)
        text = content.decode(json.detect_encoding(content))
        del content  # `json.loads` would keep the bytes beside the text, of large files as much again
        results = json.loads(text)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(f"{path}: expected COCO results as json or gzipped json, can't read it: {error}") from error
    if not isinstance(results, list):
        hint = "; is it an annotation file?" if isinstance(results, dict) and "images" in results else ""
        raise DataError(f"{path}: expected a list of COCO results, found a {_kind(results)}{hint}")
    for index, record in enumerate(results):
        problem = _problem(record)
        if problem:
            raise DataError(f"{path}, record {index}: {problem}")
    return results


def _unpacked(content: bytes) -> bytes:
    """What was gzipped; results shrink to a tenth or so, and not to a hundredth."""
    most = max(LEAST, 100 * len(content))
    with gzip.open(io.BytesIO(content)) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most:
        raise ValueError(f"{len(content)} bytes unpack to more than {most}, as no results do")
    return unpacked


def _problem(record: Any) -> str | None:
    """What is wrong with a record, or None."""
    if not isinstance(record, dict):
        return f"expected an object with image_id, category_id and score, found a {_kind(record)}"
    missing = [key for key in ("image_id", "category_id", "score") if key not in record]
    if missing:
        return f"lacks {', '.join(missing)}; found {', '.join(record) or 'nothing'}"
    if not any(record.get(key) for key in ("segmentation", "bbox", "box")):
        return "has neither a segmentation nor a bbox"
    for key in ("image_id", "category_id"):
        if not isinstance(record[key], int) or isinstance(record[key], bool):
            return f"{key} is an integer, found {record[key]!r}"
    if not is_number(record["score"]):
        return f"score is a finite number, found {record['score']!r}"
    for key in ("bbox", "box"):
        if record.get(key) and not is_box(record[key]):
            return f"{key} is [x, y, width, height], found {record[key]!r}"
    if "segmentation" in record and not _is_segmentation(record["segmentation"]):
        return "segmentation is an RLE with size [H, W] and counts, or a list of polygons [x, y, x, y, …]"
    return None


def _kind(value: Any) -> str:
    names = {dict: "json object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _is_segmentation(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, list) and len(part) >= 6 and all(map(is_number, part)) for part in value)
    if not isinstance(value, dict) or not isinstance(value.get("counts"), str | list):
        return False
    size = value.get("size")
    return isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
