"""Parts of the truths whose AP is asked for: by size, by crowding, by occlusion, by boundary length.

D detections   G truths   g truths of an image
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float

from maskbench.evaluation.boundary import edge
from maskbench.evaluation.overlaps import Overlaps, by_key
from maskbench.structures import RLE

SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""COCO's areas in pixels; both ends belong to a size."""

CROWDING = {"alone": (0, 0), "one or two": (1, 2), "three or more": (3, np.inf)}
"""Neighbours of an object: those that share a border or a corner of a pixel with it, or overlap it."""

OCCLUSION = {"none": (0.0, 0.0), "up to a tenth": (1e-9, 0.1), "more": (0.1, np.inf)}
"""Share of an object's box that others take: what stands before an object or behind it lies in its box."""

BOUNDARY = {"up to 128 px": (0.0, 128.0), "to 384 px": (129.0, 384.0), "longer": (385.0, np.inf)}
"""Pixels along an object's outline: four sides of 32 and of 96 pixels, as COCO's sizes have them."""


@dataclass(frozen=True)
class Stratum:
    """A part of the truths.

    Args:
        truths: those that belong to it; others may be found without gain or harm.
        detections: those that count as wrong if they find nothing.
    """

    truths: Bool[np.ndarray, " G"]
    detections: Bool[np.ndarray, " D"]


def sizes(found: Overlaps) -> dict[str, Stratum]:
    """COCO's strata: all, small, medium and large, by the area of truths and detections."""
    return {
        name: Stratum(_within(found.truths.area, bounds), _within(found.detections.area, bounds))
        for name, bounds in SIZES.items()
    }


def crowding(found: Overlaps) -> dict[str, Stratum]:
    """By the number of neighbours that touch (see `_by_truth` for what counts as wrong)."""
    return _by_truth(found, _of_each_image(found, _neighbours), CROWDING)


def occlusion(found: Overlaps) -> dict[str, Stratum]:
    """By the share of an object's box that other objects take."""
    return _by_truth(found, _of_each_image(found, _crossed), OCCLUSION)


def boundary_length(found: Overlaps) -> dict[str, Stratum]:
    """By the number of an object's pixels that lie at its outline."""
    return _by_truth(found, _of_each_image(found, _outlines), BOUNDARY)


EXPLAINED = {"crowding": crowding, "occlusion": occlusion, "boundary length": boundary_length}
"""What is asked of the objects of masks beside their size."""


def _by_truth(
    found: Overlaps, values: Float[np.ndarray, " G"], bounds: Mapping[str, tuple[float, float]]
) -> dict[str, Stratum]:
    """Strata of a property that detections have not: one that finds nothing counts where the truth belongs that it
    overlaps most, and everywhere if it overlaps none."""
    nearest = np.full(len(found.score), -1)
    for crossing in found.crossings:
        nearest[crossing.detections] = crossing.truths[crossing.iou.argmax(axis=1)]
    strata = {}
    for name, limits in bounds.items():
        # one that overlaps none has −1: the last place, which is true
        own = _within(values, limits)
        strata[name] = Stratum(own, np.append(own, True)[nearest])
    return strata


def _within(values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (values >= bounds[0]) & (values <= bounds[1])


def _of_each_image(found: Overlaps, measure: Callable[[list[RLE]], Float[np.ndarray, " g"]]) -> Float[np.ndarray, " G"]:
    """A property of each truth among those of its image, crowds left out; 0 for these."""
    values = np.zeros(len(found.crowd))
    counted = np.flatnonzero(~found.crowd)
    for places in by_key(found.truths.image[counted]).values():
        rows = counted[places]
        values[rows] = measure([found.truths.shapes[row] for row in rows.tolist()])
    return values


def _neighbours(masks: list[RLE]) -> Float[np.ndarray, " g"]:
    """How many others each mask touches, were it a pixel wider on every side."""
    meet = np.asarray(rle_codec.iou([_wider(mask) for mask in masks], masks, [1] * len(masks))) > 0
    np.fill_diagonal(meet, False)
    return meet.sum(axis=1).astype(float)


def _wider(rle: RLE) -> RLE:
    mask = rle_codec.decode(rle)
    left, top, width, height = (int(side) for side in rle_codec.toBbox(rle))
    window = np.s_[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1]
    mask[window] = cv2.dilate(np.ascontiguousarray(mask[window]), np.ones((3, 3), np.uint8))
    return rle_codec.encode(mask)


def _outlines(masks: list[RLE]) -> Float[np.ndarray, " g"]:
    # one by one: of more than 255 at once pycocotools can't tell the areas
    return np.array([float(rle_codec.area(edge(mask, 1))) for mask in masks])


def _crossed(masks: list[RLE]) -> Float[np.ndarray, " g"]:
    """The share of each mask's box that others take; where these overlap each other, both count."""
    height, width = masks[0]["size"]
    boxes = rle_codec.frPyObjects(rle_codec.toBbox(masks), height, width)
    shares = np.asarray(rle_codec.iou(boxes, masks, [1] * len(masks)))
    np.fill_diagonal(shares, 0)
    return shares.sum(axis=1)
