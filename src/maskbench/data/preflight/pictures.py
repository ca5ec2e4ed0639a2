"""Small pictures of what was found: a photo with the outline that is odd, or two photos that are alike."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from maskbench.data.photos import opened, read_photo
from maskbench.data.preflight.findings import Sight
from maskbench.data.preflight.masks import is_box
from maskbench.data.preflight.outlines import Points
from maskbench.data.preflight.photos import LARGE
from maskbench.data.runs import UNDRAWABLE, label_maps, run_lengths

SIDE, QUALITY = 240, 78
"""Pixels of a picture's longer side, and how little JPEG leaves out of it."""

ROOM = 16
"""Pixels of the photo that are shown around an object at the least; half its size where that is more."""

EDGE = 4
"""Pixels around an object that lies at the edge of its photo or beyond."""

MARKED, BOXED = (255, 40, 90), (60, 150, 255)
"""Colours of an outline and of `bbox`, RGB."""

NOTHING = 128
"""Grey of what lies beyond a photo."""

Picture = UInt8[np.ndarray, "_h _w 3"]


def pictures(sight: Sight) -> list[bytes]:
    """JPEGs of the photos, the first one with what is annotated; what can't be read, or is large, is left out."""
    drawn = []
    for place, path in enumerate(sight.photos):
        with suppress(Exception):  # decoders raise anything, and what is wrong with the photo has been told
            if (photo := _read(path)) is not None:
                pixels = _shown(photo, sight.annotations if place == 0 else ())
                encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
                drawn.append(encoded.tobytes())
    return drawn


def _read(path: Path) -> Picture | None:
    with opened(path) as image:
        if image.height * image.width > LARGE:
            return None
    return read_photo(path)


def _shown(photo: Picture, annotations: tuple[Mapping[str, Any], ...]) -> Picture:
    """The photo, or what is around the one object, no larger than a picture may be."""
    size = (photo.shape[0], photo.shape[1])
    marked = [each for annotation in annotations for each in _outlines(annotation, size)]
    boxed = [_corners(annotation["bbox"]) for annotation in annotations if is_box(annotation.get("bbox"))]
    left, top, right, bottom = 0, 0, size[1], size[0]
    if len(annotations) == 1 and marked:
        left, top, right, bottom = _window([*marked, *boxed], size)
    scale = min(SIDE / max(right - left, bottom - top), 8.0)
    canvas = _resized(_cut(photo, left, top, right, bottom), scale)
    for colour, outlines in ((BOXED, boxed), (MARKED, marked)):
        for points in outlines:
            # in sixteenths of a pixel, which is what OpenCV takes for smooth lines
            places = np.clip((points - (left, top)) * scale * 16, -(2**20), 2**20).astype(np.int32)
            cv2.polylines(canvas, [places], True, colour, 1, cv2.LINE_AA, shift=4)
    return canvas


def _outlines(annotation: Mapping[str, Any], size: tuple[int, int]) -> list[Points]:
    """Polygons as they stand, or the contours of run lengths; nothing of what can't be decoded."""
    segmentation = annotation.get("segmentation")
    try:
        if isinstance(segmentation, list):
            points = [np.array(polygon, dtype=float).reshape(-1, 2) for polygon in segmentation]
            return [each for each in points if len(each) and np.isfinite(each).all()]
        mask = label_maps([run_lengths(segmentation or {}, size)], size)[0].astype(np.uint8)
    except (KeyError, *UNDRAWABLE):
        return []
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0].astype(float) + 0.5 for contour in contours]


def _corners(box: list[float]) -> Points:
    left, top, width, height = box
    right, bottom = left + width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=float)


def _window(outlines: list[Points], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is shown; beyond the photo as far as the outlines are, if that is not far."""
    end = np.array(size[::-1], dtype=float)
    points = np.clip(np.concatenate(outlines), -end / 2, 1.5 * end)
    low, high = points.min(axis=0), points.max(axis=0)
    room = max(ROOM, float((high - low).max()) / 2)
    left, top = (int(side) for side in np.floor(np.maximum(low - room, np.minimum(low - EDGE, 0))))
    right, bottom = (int(side) for side in np.ceil(np.minimum(high + room, np.maximum(high + EDGE, end))))
    return left, top, right, bottom


def _cut(photo: Picture, left: int, top: int, right: int, bottom: int) -> Picture:
    canvas = np.full((bottom - top, right - left, 3), NOTHING, np.uint8)
    height, width = photo.shape[:2]
    inside = (slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right)))
    part = photo[inside]
    row, column = inside[0].start - top, inside[1].start - left
    canvas[row : row + part.shape[0], column : column + part.shape[1]] = part
    return canvas


def _resized(pixels: Picture, scale: float) -> Picture:
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(pixels, (width, height), interpolation=method)
