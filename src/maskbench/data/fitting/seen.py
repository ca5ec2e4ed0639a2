"""The objects of a profile as a network sees them: at the size that the evaluation pipeline brings photos to.

P photos   N objects
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from maskbench.data.profile import Objects

ROWS = 1024
"""Objects whose distances to all others of their photo are worked out at a time."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Objects in pixels of the network input, each photo alone.

    Args:
        photos: height and width of the resized photos.
        padded: the same brought to multiples of the divisor.
        photo: row of the photo of each object.
        boxes: left, top, right and bottom edge.
        centres: mean column and row of the pixels.
        areas: number of pixels.
    """

    photos: Float[np.ndarray, "P 2"]
    padded: Float[np.ndarray, "P 2"]
    photo: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    centres: Float[np.ndarray, "N 2"]
    areas: Float[np.ndarray, " N"]

    @classmethod
    def of(cls, objects: Objects, short: int | None, long: int | None, divisor: int) -> Seen:
        """As `transforms.eval` with that short and long side resizes, and `data.divisor` pads."""
        stored = np.array(objects.photos, float).reshape(-1, 2)
        scale = np.ones(len(stored)) if short is None else short / stored.min(axis=1)
        if long is not None:
            scale = np.minimum(scale, long / stored.max(axis=1))
        photos = np.maximum(1, np.floor(stored * scale[:, None] + 0.5))
        rows = np.array(objects.rows, float).reshape(-1, 8)
        photo = rows[:, 0].astype(int)
        own = scale[photo]
        return cls(
            photos=photos,
            padded=divisor * np.ceil(photos / divisor),
            photo=photo,
            boxes=rows[:, 1:5] * own[:, None],
            centres=(rows[:, 5:7] + 0.5) * own[:, None] - 0.5,  # the middle of a pixel stays one
            areas=rows[:, 7] * own**2,
        )

    def __len__(self) -> int:
        return len(self.photo)

    @cached_property
    def sides(self) -> Float[np.ndarray, "N 2"]:
        """Width and height of the boxes."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @cached_property
    def sizes(self) -> Float[np.ndarray, " N"]:
        """√(w·h), which is what SOLO's and FPN's levels go by."""
        return np.sqrt(self.sides.prod(axis=1))

    @cached_property
    def apart(self) -> Float[np.ndarray, " _"]:
        """How far the nearest other centre of its photo lies from each that is not alone, along the farther axis."""
        nearest = [_nearest(self.centres[self.photo == photo]) for photo in np.unique(self.photo)]
        return np.concatenate(nearest) if nearest else np.zeros(0)


def _nearest(centres: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " _"]:
    """The distance of each to the nearest other; of one alone there is none."""
    if len(centres) < 2:
        return np.zeros(0)
    found = []
    for start in range(0, len(centres), ROWS):
        some = centres[start : start + ROWS]
        away = np.abs(some[:, None] - centres).max(axis=2)
        away[np.arange(len(some)), start + np.arange(len(some))] = np.inf
        found.append(away.min(axis=1))
    return np.concatenate(found)
