"""Matches as finders of a known quality leave them."""

from __future__ import annotations

import numpy as np

from maskbench.evaluation.matches import Matches

IMAGES, OBJECTS = 120, 4


def found_with(probability: float, seed: int, images: int = IMAGES) -> Matches:
    """Matches of a finder that finds each object with this probability, and is wrong as often as it misses."""
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(images), OBJECTS)
    right = rng.random(len(image)) < probability
    score = rng.random(len(image)) + 0.3 * right
    order = np.argsort(-score)
    right = np.tile(right[order, None, None], (1, 1, 10))
    return Matches(
        images=tuple(range(images)),
        classes=(1,),
        names=("object",),
        strata=("all",),
        image=image[order],
        label=np.zeros(len(image), dtype=np.int64),
        score=score[order],
        rank=np.zeros(len(image), dtype=np.int64),
        right=right,
        wrong=~right,
        overlap=np.where(right[:, 0, 0], 0.97, 0.0),
        truth_image=image,
        truth_label=np.zeros(len(image), dtype=np.int64),
        counted=np.ones((len(image), 1), dtype=bool),
    )
