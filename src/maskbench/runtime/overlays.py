"""Instances drawn on their photo: filled masks with a contour, label and score, readable on photos of any size.

N instances   H W pixels of the photo
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from maskbench.atomic import replacing
from maskbench.structures import Instances

Colour = tuple[int, int, int]
"""RGB, 0…255."""

LEGIBLE = 480
"""Pixels of a picture's longer side from which on names and scores can be read."""

_GOLDEN_RATIO = 0.618034
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def colour(index: int) -> Colour:
    """The colour of the instance in row `index`: hues in golden-ratio steps, so that neighbours in the list differ."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN_RATIO) % 1, 0.75 - 0.25 * (index % 2), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(
    photo: UInt8[ndarray, "H W 3"],
    instances: Instances,
    classes: Sequence[str] = (),
    *,
    opacity: float = 0.45,
    zoom: int = 1,
) -> UInt8[ndarray, "h w 3"]:
    """The photo with every instance painted on it, the best on top.

    Args:
        photo: RGB.
        instances: in pixels of the photo, scores descending.
        classes: names by label; empty: nothing is written.
        opacity: of the filled masks, 0…1.
        zoom: how many pixels of the picture a pixel of the photo becomes, each way.
    """
    if photo.shape[:2] != instances.masks.size:
        raise ValueError(f"the photo has {photo.shape[:2]} pixels, its masks {instances.masks.size}")
    canvas = _magnified(photo, zoom)
    width = max(1, round(min(canvas.shape[:2]) / 300))
    for row in reversed(range(len(instances))):
        # one at a time: an encoded stack of 400 masks of a large photo does not fit dense
        mask = instances.masks[row : row + 1].dense()[0].cpu().numpy()
        _paint(canvas, _magnified(mask, zoom), colour(row), opacity, width)
    if classes:
        for row in reversed(range(len(instances))):
            left, top, *_ = (int(zoom * side) for side in instances.boxes[row])
            text = f"{classes[int(instances.labels[row])]} {float(instances.scores[row]):.2f}"
            _write(canvas, text, (left, top), colour(row))
    return canvas


def readable(photo: UInt8[ndarray, "H W 3"]) -> int:
    """The zoom at which names fit into a photo: 1 but for small ones."""
    return max(1, math.ceil(LEGIBLE / max(photo.shape[:2])))


def _magnified(pixels: ndarray, zoom: int) -> ndarray:
    """A copy, each pixel a square of `zoom` × `zoom`."""
    return pixels.copy() if zoom == 1 else pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _paint(
    canvas: UInt8[ndarray, "H W 3"], mask: Bool[ndarray, "H W"], tint: Colour, opacity: float, width: int
) -> None:
    """Fill a mask and draw its contour, touching no pixel outside its box (large photos have many small masks)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    window = np.s_[
        max(0, rows[0] - width) : rows[-1] + 1 + width,
        max(0, columns[0] - width) : columns[-1] + 1 + width,
    ]
    part, inside = canvas[window], mask[window]
    part[inside] = ((1 - opacity) * part[inside] + opacity * np.array(tint)).astype(np.uint8)
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    edged = np.ascontiguousarray(part)
    cv2.drawContours(edged, contours, -1, tint, width, cv2.LINE_AA)
    canvas[window] = edged


def _write(canvas: UInt8[ndarray, "H W 3"], text: str, corner: tuple[int, int], tint: Colour) -> None:
    """Black text on a plate of the instance's colour, moved so that it lies inside the photo."""
    height, width = canvas.shape[:2]
    scale = max(0.3, min(height, width) / 1400)
    thickness = max(1, round(scale * 1.3))
    (text_width, text_height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
    if text_width + 4 > width or text_height + baseline + 4 > height:
        return  # a plate that would cover the whole photo says less than the photo
    left = min(max(0, corner[0]), width - text_width - 4)
    bottom = min(max(text_height + baseline + 4, corner[1]), height)
    cv2.rectangle(canvas, (left, bottom - text_height - baseline - 4), (left + text_width + 4, bottom), tint, -1)
    cv2.putText(canvas, text, (left + 2, bottom - baseline - 1), _FONT, scale, (0, 0, 0), thickness, cv2.LINE_AA)


def fit(image: UInt8[ndarray, "H W 3"], side: int) -> UInt8[ndarray, "h w 3"]:
    """The image at most `side` pixels wide and high, its proportions kept; a smaller one as it is."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def save(image: UInt8[ndarray, "H W 3"], path: Path) -> Path:
    """Write RGB as PNG, with the folders it needs, and return the path."""
    written, encoded = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    if not written:
        raise OSError(f"{path}: could not be encoded as PNG")
    with replacing(path) as part:
        part.write_bytes(encoded.tobytes())  # not cv2.imwrite: it fails in silence, and on some file names
    return path
