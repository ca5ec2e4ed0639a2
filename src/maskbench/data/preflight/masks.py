"""One annotation looked at: its mask, and what the record says of it besides."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import pycocotools.mask as rle_codec

from maskbench.data.coco import wrong_segmentation
from maskbench.data.photos import Size
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Kind
from maskbench.data.preflight.outlines import Points, crosses, enclosed, length
from maskbench.data.preflight.records import Object
from maskbench.data.runs import UNDRAWABLE, run_lengths
from maskbench.ops.polygons import rasterise

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels."""

EDGE = 1.0
"""Pixels that a polygon may reach beyond its photo: tools differ in where a pixel begins."""

BOX_SLACK = 3.0
"""Pixels that a side of `bbox` may be off, and …"""
SLACK = 0.1
"""… the share of the object's size, which of areas may be off, too."""

LOST = 0.05
"""Share of a mask that a crossing has to change to be told of."""

Fault = tuple[Kind, str]
"""What is wrong with an annotation, and what stands there."""


@dataclass(frozen=True)
class Mask:
    """A mask that could be drawn.

    Args:
        area: in pixels.
        box: around its pixels; all zero where it has none.
        counts: its run lengths as COCO compresses them, equal for equal masks.
        polygons: its outlines, if it is made of some.
    """

    area: int
    box: Box
    counts: bytes
    polygons: tuple[Points, ...]

    @cached_property
    def extent(self) -> Box:
        """Around its polygons, which slivers leave without pixels; around its pixels where it has none."""
        if not self.polygons:
            return self.box
        points = np.concatenate(self.polygons)
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return left, top, right, bottom

    @cached_property
    def wound(self) -> list[float]:
        """What each polygon winds around, in square pixels."""
        return [enclosed(points) for points in self.polygons]

    def reach(self, size: Size) -> float | None:
        """How far its polygons reach beyond the photo, in pixels; None where they lie outside altogether."""
        (left, top, right, bottom), (height, width) = self.extent, size
        if self.polygons and (left >= width or top >= height or right <= 0 or bottom <= 0):
            return None
        return max(0.0, -left, -top, right - width, bottom - height)


def draw(content: dict[str, Any], size: Size, faults: list[Fault]) -> Mask | None:
    """The mask of an annotation's record on a photo of `size` (height, width); None where there is none, with why."""
    segmentation = content.get("segmentation")
    if segmentation is None or segmentation == []:
        faults.append((kinds.MASK_MISSING, "has no segmentation" + (", but a bbox" if content.get("bbox") else "")))
        return None
    if wrong := wrong_segmentation(segmentation, size):
        sized = isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), list | str)
        faults.append((kinds.RLE_SIZE if sized else kinds.MASK_FORM, f"its segmentation {wrong}"))
        return None
    if isinstance(segmentation, list):
        return _drawn(segmentation, size, faults)
    try:
        return _measured(_compressed(segmentation, size), ())
    except UNDRAWABLE as error:
        faults.append((kinds.MASK_UNDECODABLE, str(error)))
        return None


def _drawn(segmentation: list[Any], size: Size, faults: list[Fault]) -> Mask | None:
    """Of polygons, as `draw`."""
    try:
        coordinates = [np.array(polygon, dtype=float) for polygon in segmentation]
        if any(each.ndim != 1 for each in coordinates):
            faults.append((kinds.MASK_FORM, "a polygon is a list of pairs, expected [x, y, x, y, …]"))
            return None
        if not all(np.isfinite(each).all() for each in coordinates):
            raise ValueError("a coordinate is no finite number")
    except UNDRAWABLE as error:
        faults.append((kinds.COORDINATE_FORM, str(error)))
        return None
    try:
        return _measured(rasterise(segmentation, size), tuple(each.reshape(-1, 2) for each in coordinates))
    except UNDRAWABLE as error:
        faults.append((kinds.MASK_UNDECODABLE, str(error)))
        return None


def _compressed(segmentation: dict[str, Any], size: Size) -> dict[str, Any]:
    """Run lengths that fill the photo, as pycocotools can be trusted with."""
    runs, counts = run_lengths(segmentation, size), segmentation["counts"]
    if isinstance(counts, str):
        return {"size": list(size), "counts": counts.encode()}
    rle: dict[str, Any] = rle_codec.frPyObjects({"size": list(size), "counts": runs.tolist()}, *size)
    return rle


def _measured(rle: dict[str, Any], polygons: tuple[Points, ...]) -> Mask:
    left, top, width, height = (float(side) for side in rle_codec.toBbox(rle))
    return Mask(int(rle_codec.area(rle)), (left, top, left + width, top + height), rle["counts"], polygons)


def mask_faults(mask: Mask, size: Size) -> Iterator[Fault]:
    """What is odd about a mask that could be drawn."""
    reach = mask.reach(size)
    if reach is None:
        yield kinds.MASK_OUTSIDE, f"spans {_corners(mask.extent)}, but the photo has {_sides(size)}"
    elif not mask.area:
        yield kinds.MASK_EMPTY, "covers no pixel"
    elif mask.area == 1:
        yield kinds.MASK_PIXEL, f"covers the pixel at x {mask.box[0]:.0f}, y {mask.box[1]:.0f}"
    if reach is not None and reach > EDGE:
        yield kinds.POLYGON_BEYOND, f"reaches {reach:.1f} px beyond the photo of {_sides(size)}"
    for points, wound in zip(mask.polygons, mask.wound, strict=True):
        if crosses(points):
            if lost := _lost(points, wound, size):
                yield kinds.POLYGON_CROSSES, lost
        elif wound < 1e-6:
            yield kinds.POLYGON_FLAT, f"a polygon of {len(points)} points encloses nothing"


def _lost(points: Points, wound: float, size: Size) -> str | None:
    """What a crossing makes of the area, where it is worth telling."""
    drawn = int(rle_codec.area(rasterise([points.ravel().tolist()], size)))
    if abs(wound - drawn) <= LOST * drawn + length(points) / 4:
        return None
    return f"a polygon of {len(points)} points winds around {wound:.0f} px, but {drawn} px are drawn"


# What the record says besides -----------------------------------------------------------------------------------------


def box_faults(content: dict[str, Any], mask: Mask | None) -> Iterator[Fault]:
    """What is wrong with `bbox`, where there is one."""
    box = content.get("bbox")
    if box is None or box == []:  # the evaluator takes the mask's
        return
    if not is_box(box):
        yield kinds.BOX_FORM, f"`bbox` is {box!r:.80}"
    elif mask is not None and mask.area:
        left, top, width, height = box
        told = (left, top, left + width, top + height)
        if not _fits(told, mask):
            corners = " (it would be if these were two corners)" if has_corners(content, mask) else ""
            yield kinds.BOX_OFF, f"`bbox` spans {_corners(told)}, the mask {_corners(mask.box)}{corners}"


def is_box(box: Any) -> TypeGuard[list[float]]:
    """Whether it is left, top, width and height."""
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and min(box[2:]) >= 0


def has_corners(content: dict[str, Any], mask: Mask) -> bool:
    """Whether `bbox` would be right if it were left, top, right and bottom, and is not as it should be."""
    box = content.get("bbox")
    if not is_box(box):
        return False
    left, top, width, height = box
    return _fits((left, top, width, height), mask) and not _fits((left, top, left + width, top + height), mask)


def _fits(box: Box, mask: Mask) -> bool:
    """Whether a box lies around the pixels of a mask, or around its polygons, which slivers leave without pixels."""
    return any(
        all(abs(a - b) <= BOX_SLACK + SLACK * side for a, b, side in zip(box, span, _lengths(span) * 2, strict=True))
        for span in (mask.box, mask.extent)
    )


def area_faults(each: Object, mask: Mask | None) -> Iterator[Fault]:
    """What is wrong with `area`, where there is one."""
    area = each.content.get("area")
    if area is None:  # the evaluator counts the mask's pixels
        return
    if not _is_number(area) or area < 0:
        yield kinds.AREA_FORM, f"`area` is {area!r:.60}"
    elif mask is not None and mask.area and not each.crowd:  # which are of no size
        sums = [mask.area, sum(mask.wound)] if mask.polygons else [mask.area]
        slack = SLACK * mask.area + sum(map(length, mask.polygons)) / 4
        if all(abs(area - pixels) > slack for pixels in sums):
            yield kinds.AREA_OFF, f"`area` is {area:.6g}, but the mask has {mask.area} pixels"


def crowd_faults(each: Object) -> Iterator[Fault]:
    if each.crowd and isinstance(each.content.get("segmentation"), list):
        yield kinds.CROWD_POLYGONS, "has iscrowd=1 and polygons"


def _is_number(value: Any) -> bool:
    """Whether it is one that fits a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _lengths(box: Box) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def _corners(box: Box) -> str:
    left, top, right, bottom = (f"{side:.0f}" for side in box)
    return f"x {left} to {right} and y {top} to {bottom}"


def _sides(size: Size) -> str:
    return f"{size[0]} x {size[1]} pixels (height x width)"
