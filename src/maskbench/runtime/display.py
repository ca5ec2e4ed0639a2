"""A photo as people look at it: upright, and with 16 bits stretched. What the network sees stays what training sees.

H W pixels of the photo as stored
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from maskbench.data.photos import UPRIGHT, as_stored, opened, orientation

DARKEST, BRIGHTEST = 0.1, 99.9
"""Percentiles of the pixels of a photo of 16 bits that are shown black and white."""


@dataclass(frozen=True)
class Display:
    """How a photo is shown.

    Args:
        photo: its stored pixels, stretched if they have 16 bits.
        orientation: EXIF's, which says how they are turned.
        stretched: whether they are others than the network sees.
    """

    photo: UInt8[ndarray, "H W 3"]
    orientation: int = UPRIGHT
    stretched: bool = False


def display(path: Path, photo: UInt8[ndarray, "H W 3"]) -> Display:
    """How the photo of a file is shown that has been read as `photo`."""
    with warnings.catch_warnings():  # PIL's, which whoever has read the photo has passed over
        warnings.simplefilter("ignore")
        with opened(path) as image:
            if not image.mode.startswith("I"):
                return Display(photo, orientation(image))
            deep, told = as_stored(image)
            return Display(_stretched(np.asarray(deep)), told, stretched=True)


def turned(pixels: ndarray, orientation: int) -> ndarray:
    """Pixels of the stored photo, or of a mask of it, as EXIF says that they are looked at."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _stretched(grey: ndarray) -> UInt8[ndarray, "H W 3"]:
    low, high = np.percentile(grey, (DARKEST, BRIGHTEST))
    scaled = (grey.astype(np.float32) - low) * (255 / max(1, high - low))
    return np.repeat(scaled.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
