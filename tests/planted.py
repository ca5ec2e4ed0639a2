"""Objects written by hand, as a profile has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskbench.data.profile import Objects, Profile

Box = tuple[float, float, float, float]


def objects(photos: Sequence[tuple[int, int]], boxes: Sequence[Sequence[Box]]) -> Objects:
    """Filled boxes (left, top, right, bottom) a list for each photo."""
    rows = [
        [photo, *box, (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2, (box[2] - box[0]) * (box[3] - box[1])]
        for photo, own in enumerate(boxes)
        for box in own
    ]
    return Objects([list(size) for size in photos], rows)


def scattered(rng: np.random.Generator, photo: tuple[int, int], count: int, sides: tuple[int, int]) -> list[Box]:
    """Boxes of whole pixels anywhere in a photo."""
    extent = rng.integers(sides[0], sides[1] + 1, (count, 2))
    corner = rng.integers(0, np.array([photo[1], photo[0]]) - extent + 1)
    return [(*map(float, low), *map(float, low + side)) for low, side in zip(corner, extent, strict=True)]


def profile(found: Objects) -> Profile:
    """The statistics that go with them."""
    counts = np.bincount([int(row[0]) for row in found.rows], minlength=len(found.photos))
    return Profile(
        classes={"disc": len(found.rows)},
        images=len(found.photos),
        empty=int((counts == 0).sum()),
        instances=len(found.rows),
        crowds=0,
        photo_sides={},
        per_image=np.quantile(counts, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist(),
        most_per_image=int(counts.max()),
        sizes=[],
        crowding=0.0,
        sampled=len(found.photos),
        objects=found,
    )
