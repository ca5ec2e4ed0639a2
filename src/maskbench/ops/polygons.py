"""COCO's polygons as masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as rle_codec

REACH = 16
"""A coordinate may lie this many times the photo's height and width beyond it."""


def rasterise(polygons: list[Any], size: tuple[int, int]) -> dict[str, Any]:
    """The union of polygons as compressed run lengths, as pycocotools draws it.

    Args:
        polygons: COCO's `segmentation`, a list of lists x, y, x, y, … in pixels.
        size: height and width of the photo.

    Raises:
        ValueError: a coordinate is no number, or so far away that pycocotools, which walks along the outline, would
            take all of the memory; or there is no polygon, or one without numbers.
        TypeError: the polygons are something else.
    """
    for polygon in polygons or [[]]:
        if not isinstance(polygon, list):  # what pycocotools may take for a mask of another size
            raise TypeError(f"a polygon is a list of numbers, found {polygon!r:.40}")
        if len(polygon) < 4:
            raise ValueError(f"a polygon has points x, y, found {polygon!r:.40}")
        coordinates = np.asarray(polygon, dtype=float)
        if coordinates.ndim != 1:  # pycocotools would draw something else
            raise ValueError(f"a polygon is a list of pairs, expected x, y, x, y, …: {polygon!r:.40}")
        farthest = np.abs(coordinates).max(initial=0)
        if not farthest <= REACH * sum(size):
            raise ValueError(f"a polygon reaches to {farthest:.6g}, but the photo has {size[0]} x {size[1]} pixels")
    rle: dict[str, Any] = rle_codec.merge(rle_codec.frPyObjects(polygons, *size))
    return rle
