"""Instances drawn on their photo: tinted masks with a contour, label and score, readable on photos of any size.

N instances   H W pixels of the photo   h w pixels of the picture
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8
from numpy import ndarray

from maskbench.atomic import replacing
from maskbench.runtime.colours import Colour, Colours
from maskbench.runtime.display import turned
from maskbench.runtime.lettering import FREE, PLATE, Span, letter_size, place, plate
from maskbench.structures import Instances

LEGIBLE = 480
"""Pixels of a picture's longer side from which on names and scores can be read."""

OPACITY = 0.4
"""Of the tint of a mask: what is in it stays visible."""

CROWDED = 1 / 6
"""Share of a picture that names may hide before those of the smallest instances are left out."""

CASING: Colour = (0, 0, 0)
"""The contour lies on a wider one of this colour: every colour is bright, so that one of both stands out anywhere."""


def draw(
    photo: UInt8[ndarray, "H W 3"],
    instances: Instances,
    classes: Sequence[str] = (),
    colours: Sequence[Colour] | None = None,
    *,
    opacity: float = OPACITY,
    zoom: int = 1,
    orientation: int = 1,
) -> UInt8[ndarray, "h w 3"]:
    """The photo with every instance on it; where masks overlap, a pixel has the colour of the best of them.

    Args:
        photo: RGB.
        instances: in pixels of the photo, scores descending.
        classes: names by label; empty: nothing is written. Where there is one alone, the score says it all.
        colours: of each instance; those of `Colours` when None.
        opacity: of the tinted masks, 0…1.
        zoom: how many pixels of the picture a pixel of the photo becomes, each way.
        orientation: EXIF's, by which photo and masks are turned first.
    """
    if photo.shape[:2] != instances.masks.size:
        raise ValueError(f"the photo has {photo.shape[:2]} pixels, its masks {instances.masks.size}")
    colours = Colours().of(instances) if colours is None else colours
    canvas = _magnified(turned(photo, orientation), zoom)
    owners, spans, contours = np.full(canvas.shape[:2], FREE, np.int32), {}, {}
    for row in reversed(range(len(instances))):
        # one at a time: an encoded stack of 400 masks of a large photo does not fit dense
        mask = turned(instances.masks[row : row + 1].dense()[0].cpu().numpy(), orientation)
        span = _span(mask, zoom)
        if span is None:
            continue
        window = np.s_[span[0] : span[2], span[1] : span[3]]
        inside = _magnified(mask[tuple(slice(side.start // zoom, side.stop // zoom) for side in window)], zoom)
        owners[window][inside] = row + 1
        spans[row], contours[row] = span, _contours(inside, span)
    _tint(canvas, owners, colours, opacity)
    width = max(1, round(max(canvas.shape[:2]) / 640))
    for thickness, cased in ((width + 2 * max(1, width // 2), True), (width, False)):
        for row, lines in contours.items():
            cv2.drawContours(canvas, lines, -1, CASING if cased else colours[row], thickness, cv2.LINE_AA)
    if classes:
        _name(canvas, owners, spans, [_text(instances, row, classes) for row in range(len(instances))], colours)
    return canvas


def readable(photo: UInt8[ndarray, "H W 3"]) -> int:
    """The zoom at which names fit into a photo: 1 but for small ones."""
    return max(1, math.ceil(LEGIBLE / max(photo.shape[:2])))


def _magnified(pixels: ndarray, zoom: int) -> ndarray:
    """A copy, each pixel a square of `zoom` × `zoom`."""
    return pixels.copy() if zoom == 1 else pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _span(mask: Bool[ndarray, "H W"], zoom: int) -> Span | None:
    """The box of a mask in the picture; None without a pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    top, left, bottom, right = (int(zoom * side) for side in (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    return top, left, bottom, right


def _contours(inside: Bool[ndarray, "h w"], span: Span) -> Sequence[ndarray]:
    """The outlines of a mask that fills its box, those of its holes too, in the picture."""
    return cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(span[1], span[0]))[0]


def _tint(
    canvas: UInt8[ndarray, "h w 3"], owners: Int32[ndarray, "h w"], colours: Sequence[Colour], opacity: float
) -> None:
    """Blend every pixel that an instance owns with the instance's colour."""
    rows, columns = np.nonzero(owners)
    tints = np.asarray(colours, np.float32).reshape(-1, 3)[owners[rows, columns] - 1]
    canvas[rows, columns] = ((1 - opacity) * canvas[rows, columns] + opacity * tints).astype(np.uint8)


def _text(instances: Instances, row: int, classes: Sequence[str]) -> str:
    """Class and score, or the score where there is one class alone."""
    name = f"{classes[int(instances.labels[row])]} " if len(classes) > 1 else ""
    return f"{name}{float(instances.scores[row]):.2f}"


def _name(
    canvas: UInt8[ndarray, "h w 3"],
    owners: Int32[ndarray, "h w"],
    spans: Mapping[int, Span],
    texts: Sequence[str],
    colours: Sequence[Colour],
) -> None:
    """Lay names on the picture, the best first, each where there is a place for it.

    Where all of them would hide too much of the picture, instances that are smaller than their names have none.
    """
    size = letter_size(canvas.shape[:2])
    plates = {row: plate(texts[row], size, colours[row]) for row in sorted(spans)}
    crowded = sum(each[:, :, 0].size for each in plates.values()) > CROWDED * owners.size
    for row, lettered in plates.items():
        top, left, bottom, right = spans[row]
        area = int((owners[top:bottom, left:right] == row + 1).sum())
        height, width = lettered.shape[:2]
        corner = None if crowded and area < height * width else place(owners, row + 1, spans[row], (height, width))
        if corner is not None:
            window = np.s_[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
            canvas[window], owners[window] = lettered, PLATE


def fit(image: UInt8[ndarray, "H W 3"], side: int) -> UInt8[ndarray, "h w 3"]:
    """The image at most `side` pixels wide and high, its proportions kept; a smaller one as it is."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def save(image: ndarray, path: Path) -> Path:
    """Write RGB of 8 bits or integers of 16 as PNG, with the folders it needs, and return the path."""
    stored = image[:, :, ::-1] if image.ndim == 3 else image
    written, encoded = cv2.imencode(".png", np.ascontiguousarray(stored))
    if not written:
        raise OSError(f"{path}: could not be encoded as PNG")
    with replacing(path) as part:
        part.write_bytes(encoded.tobytes())  # not cv2.imwrite: it fails in silence, and on some file names
    return path
