"""What all methods share: the size of the input, how far it varies in training, how many instances count, how long.

P photos   N objects
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SMALL = 16.0
"""Pixels (√area) that the smallest twentieth of the objects is to have: four cells of a map of stride 4. At the papers'
short side of 800 the smallest twentieth of COCO's has up to 15."""
UP = 2.0
"""Times its own size to which the typical photo may be enlarged: more adds pixels and no detail."""
WIDEST = 5 / 3
"""Long over short side that is never capped: the papers' 1333 over 800."""
VARIED = 12.0
"""Large objects (95 %) over small ones (5 %): from here on photos show objects at many scales as it is."""
DIVISOR = 32
"""Lengths of inputs are multiples of it."""


@dataclass(frozen=True)
class Budget:
    """What a machine trains in the time that people give it, for a data set of a known size.

    Args:
        pixels: of the input that the typical photo becomes.
        epochs: of training on so many `images`.
    """

    pixels: int
    epochs: int
    images: int


BUDGETS = {
    "cpu": Budget(pixels=150_000, epochs=4, images=2_000),  # the drawn shapes in minutes, short sides of 384
    "gpu": Budget(pixels=1_000_000, epochs=12, images=118_287),  # COCO as the papers train it, short sides of 800
}
MOST_EPOCHS = 300


@dataclass(frozen=True)
class Short:
    """A short side with what it was chosen among.

    Args:
        side: pixels.
        own: short side of the typical photo.
        wanted: at which small objects have `SMALL` pixels.
        affordable: at which the typical photo uses up the budget.
        small: pixels that small objects have.
    """

    side: int
    own: float
    wanted: float
    affordable: float
    small: float


def fit_short(photos: Float[np.ndarray, "P 2"], sizes: Float[np.ndarray, " N"], budget: Budget) -> Short:
    """As large as photos are; larger where small objects need it; smaller where the budget does.

    Args:
        photos: height and width of the photos as stored.
        sizes: √area of each object in short sides of its photo.
        budget: what can be afforded.
    """
    shorts, longs = photos.min(axis=1), photos.max(axis=1)
    own, small = float(np.median(shorts)), float(np.quantile(sizes, 0.05))
    wanted = SMALL / small
    affordable = float(np.sqrt(budget.pixels / np.median(longs / shorts)))
    most = DIVISOR * (min(affordable, UP * own) // DIVISOR)
    side = int(max(DIVISOR, min(DIVISOR * round(max(own, wanted) / DIVISOR), most)))
    return Short(side, own, wanted, affordable, side * small)


def fit_long(photos: Float[np.ndarray, "P 2"], short: int) -> int:
    """A cap that all but the most elongated photos stay below."""
    elongated = float(np.quantile(photos.max(axis=1) / photos.min(axis=1), 0.95))
    return int(DIVISOR * np.ceil(short * min(3.0, max(WIDEST, elongated)) / DIVISOR))


def spread(sizes: Float[np.ndarray, " N"]) -> float:
    """How many times as large large objects (95 %) are as small ones (5 %)."""
    low, high = np.quantile(sizes, (0.05, 0.95))
    return float(high / low)


def fit_scale(spread: float, now: tuple[float, float]) -> list[float]:
    """Factors between which training varies the size: both ways where objects hardly vary, and never less than now."""
    low, high = (0.8, 1.25) if spread < VARIED else (0.8, 1.0)
    return [min(low, now[0]), max(high, now[1])]


def fit_epochs(images: int, budget: Budget) -> int:
    """Few images are seen more often, but fewer are seen in all: their number falls with the root of the set's size.

    From COCO's 12 epochs of 118,287 images it follows for the 2,975 of Cityscapes that they are seen 76 times (64 in
    detectron2's schedule).
    """
    return int(np.clip(round(budget.epochs * (budget.images / max(1, images)) ** 0.5), 1, MOST_EPOCHS))


def hundreds(number: float) -> int:
    """Rounded up to a hundred, one at least."""
    return max(100, 100 * int(np.ceil(number / 100)))
