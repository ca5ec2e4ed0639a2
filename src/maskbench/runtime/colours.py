"""Which colour an instance is drawn in: its own wherever it is drawn, and another than its neighbours'.

N instances
"""

from __future__ import annotations

import zlib

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float
from numpy import ndarray

from maskbench.structures import RLE, Instances

Colour = tuple[int, int, int]
"""RGB, 0…255."""

PALETTE: tuple[Colour, ...] = (
    (255, 204, 0),
    (0, 135, 255),
    (0, 255, 0),
    (238, 0, 255),
    (0, 255, 238),
    (255, 0, 0),
    (203, 255, 144),
    (255, 0, 169),
    (104, 204, 255),
    (215, 114, 0),
    (0, 255, 136),
    (172, 88, 215),
    (203, 255, 0),
    (215, 122, 159),
    (215, 171, 122),
    (255, 54, 108),
)
"""Bright and far from each other as the eye sees them (in CIELAB at least 39 apart); black is read on each."""

SAME = 0.5
"""Masks of two methods that overlap by this IoU are one object."""

REACH = 0.2
"""How far around its box an instance's neighbourhood reaches, in sides of the box."""


class Colours:
    """The colours of all that is found in one photo, by one method or by several.

    An instance's box says which colour it prefers, so that it keeps it whatever else is drawn. Where a neighbour of a
    higher score has that colour already, it takes the next of its own order: it changes only if that neighbour goes.
    What an earlier method has found as well keeps the colour it had there.
    """

    def __init__(self) -> None:
        self._masks: list[RLE] = []
        self._numbers: list[int] = []

    def of(self, instances: Instances) -> list[Colour]:
        """The colour of each instance of a method: of all that it found, so that no threshold has a say."""
        masks = instances.masks.rle()
        numbers = self._met_before(masks)
        near = _neighbours(instances.boxes.cpu().numpy())
        new = [row for row, number in enumerate(numbers) if number is None]
        for row, box in zip(new, instances.boxes[new].cpu().numpy(), strict=True):
            taken = [numbers[other] for other in np.flatnonzero(near[row])]
            order = _preferred(box)
            numbers[row] = min(order, key=taken.count)
        chosen = [number for number in numbers if number is not None]
        self._masks += [masks[row] for row in new]
        self._numbers += [chosen[row] for row in new]
        return [PALETTE[number] for number in chosen]

    def _met_before(self, masks: list[RLE]) -> list[int | None]:
        """The number of the best known object that each mask is of; of several masks the best has it."""
        if not masks or not self._masks:
            return [None] * len(masks)
        overlap = np.asarray(rle_codec.iou(masks, self._masks, [0] * len(self._masks)))
        free, numbers = np.ones(len(self._masks), bool), [None] * len(masks)  # type: tuple[ndarray, list[int | None]]
        for row, shared in enumerate(overlap):
            same = np.flatnonzero((shared >= SAME) & free)
            if len(same):
                numbers[row], free[same[0]] = self._numbers[same[0]], False
        return numbers


def _preferred(box: Float[ndarray, "4"]) -> list[int]:
    """The palette in an order of the box's own, to the pixel."""
    seed = zlib.crc32(np.rint(box).astype("<i4").tobytes())
    start, step = seed % len(PALETTE), 1 + 2 * (seed // 256 % (len(PALETTE) // 2))
    return [(start + step * place) % len(PALETTE) for place in range(len(PALETTE))]  # all: an odd step, of a power of 2


def _neighbours(boxes: Float[ndarray, "N 4"]) -> Bool[ndarray, "N N"]:
    """Whose neighbourhoods touch; nobody is their own neighbour."""
    margin = 1 + REACH * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    near = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=2)
    np.fill_diagonal(near, False)
    return near
