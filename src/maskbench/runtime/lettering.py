"""Words in pictures: the one font, and names beside what they name.

H W pixels of the picture   h w pixels of a plate
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Int32, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from maskbench.runtime.colours import Colour

SMALLEST = 12
"""Pixels of the smallest letters that are read without effort."""

FREE, PLATE = 0, -1
"""Nobody's pixels in a map of owners, and those of a name."""

Span = tuple[int, int, int, int]
"""Top, left, bottom and right, the last two exclusive."""


def letter_size(picture: tuple[int, int]) -> int:
    """Pixels of letters that are read in a picture of this height and width that is looked at as a whole."""
    return max(SMALLEST, round(max(picture) / 64))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and has the letters of most alphabets, where OpenCV's has those of ASCII."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def plate(text: str, size: int, background: Colour, letters: Colour = (0, 0, 0)) -> UInt8[ndarray, "h w 3"]:
    """Words on a plate that is as large as they need."""
    font, margin = _font(size), max(1, size // 8)
    ascent, descent = font.getmetrics()
    width = int(font.getlength(text) + 0.999)
    image = Image.new("RGB", (width + 2 * margin, ascent + descent), background)
    ImageDraw.Draw(image).text((margin, 0), text, fill=letters, font=font)
    return np.asarray(image)


def shortened(text: str, size: int, width: int) -> str:
    """The words, the last of them left out where they need more pixels than `width`."""
    while text and plate(text, size, (0, 0, 0)).shape[1] > width:
        text = text.rstrip("…")[:-1].rstrip() + "…" if len(text.rstrip("…")) > 1 else ""
    return text


def head_line(texts: Sequence[str], width: int, size: int) -> UInt8[ndarray, "h w 3"]:
    """Words at the left of a white line and others at its right; where there's no room the last ones are left out."""
    line = np.full((plate("", size, (255, 255, 255)).shape[0] + size // 2, width, 3), 255, np.uint8)
    left, *right = texts
    lettered = [plate(text, size, (255, 255, 255)) for text in right if text]
    room = width - sum(each.shape[1] for each in lettered)
    lettered.insert(0, plate(shortened(left, size, room), size, (255, 255, 255)))
    for place, each in enumerate(lettered):
        if each.shape[1] <= width:
            start = width - each.shape[1] if place else 0
            line[size // 4 : size // 4 + each.shape[0], start : start + each.shape[1]] = each
    return line


def place(owners: Int32[ndarray, "H W"], owner: int, span: Span, size: tuple[int, int]) -> tuple[int, int] | None:
    """Where the name of an instance goes: top and left of its plate, inside the picture and over no other name.

    Of the places around and in its box the one that hides least of other instances, the first of equals. None where
    every place is taken, or would hide more of others than the picture shows of the instance itself.

    Args:
        owners: whose each pixel is, `FREE` or `PLATE`.
        owner: the instance.
        span: its box.
        size: height and width of the plate.
    """
    top, left, bottom, right = span
    height, width = size
    if height > owners.shape[0] or width > owners.shape[1]:
        return None
    corners = (
        (top - height, left),
        (bottom, left),
        (top, left),
        (top - height, right - width),
        (bottom, right - width),
        (bottom - height, left),
        (top, right),
        (top, left - width),
        ((top + bottom - height) // 2, (left + right - width) // 2),
    )
    best: tuple[int, int] | None = None
    least = int((owners[top:bottom, left:right] == owner).sum()) + 1
    for y, x in corners:
        corner = min(max(0, y), owners.shape[0] - height), min(max(0, x), owners.shape[1] - width)
        window = owners[corner[0] : corner[0] + height, corner[1] : corner[1] + width]
        hidden = int(((window != FREE) & (window != owner)).sum())
        if hidden < least and not (window == PLATE).any():
            best, least = corner, hidden
    return best
