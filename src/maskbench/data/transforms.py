"""THE training pipeline and THE evaluation pipeline, on albumentations.

Both scale the photo once, keeping its ratio. Masks travel as label maps (`data.runs`): one map stands for all instances
that don't overlap, so a pipeline costs the same for four nuclei and for four hundred, and albumentations, which drops
boxes but never masks, has nothing to lose track of. Boxes are computed from the masks that come out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from maskbench.data.resize import fitted
from maskbench.errors import ConfigError

# Importing albumentations otherwise asks PyPI for its newest version: no network, no delay.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations
from albumentations.core.type_definitions import Targets

Photo = UInt8[np.ndarray, "H W 3"]
Maps = Sequence[UInt16[np.ndarray, "H W"]]
Transformed = tuple[UInt8[np.ndarray, "h w 3"], list[UInt16[np.ndarray, "h w"]]]
"""Network input and label maps of one size, before padding."""


class KeepRatio(albumentations.DualTransform):
    """Resize to `fitted(…)`, times a random factor.

    Args:
        short, long: as in `fitted`.
        scale: lowest and highest factor; between them its logarithm is uniform, so that halving and doubling are as
            likely.
    """

    _targets: ClassVar[tuple[Targets, ...]] = (Targets.IMAGE, Targets.MASK)

    def __init__(self, short: int | None, long: int | None, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__(p=1.0)
        self.short, self.long, self.scale = short, long, scale

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        low, high = self.scale
        factor = low * (high / low) ** self.py_random.random()
        return {"target": fitted(params["shape"][:2], self.short, self.long, factor)}

    def apply(self, img: np.ndarray, target: tuple[int, int], **params: Any) -> np.ndarray:
        # Averaging on the way down: plain bilinear sampling would skip pixels.
        method = cv2.INTER_AREA if target[0] < img.shape[0] else cv2.INTER_LINEAR
        return _resize(img, target, method)

    def apply_to_mask(self, mask: np.ndarray, target: tuple[int, int], **params: Any) -> np.ndarray:
        # INTER_NEAREST samples the upper left corner of a pixel, and shifts masks against the image by half of one.
        return _resize(mask, target, cv2.INTER_NEAREST_EXACT)


def _resize(pixels: np.ndarray, target: tuple[int, int], method: int) -> np.ndarray:
    if pixels.shape[:2] == target:
        return pixels
    return cv2.resize(pixels, (target[1], target[0]), interpolation=method)


class Crop(albumentations.DualTransform):
    """Cut a random window of at most `side` × `side` pixels; what is smaller stays as it is (collate pads it)."""

    _targets: ClassVar[tuple[Targets, ...]] = (Targets.IMAGE, Targets.MASK)

    def __init__(self, side: int) -> None:
        super().__init__(p=1.0)
        self.side = side

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        top = self.py_random.randint(0, max(0, height - self.side))
        left = self.py_random.randint(0, max(0, width - self.side))
        return {"window": (slice(top, top + self.side), slice(left, left + self.side))}

    def apply(self, img: np.ndarray, window: tuple[slice, slice], **params: Any) -> np.ndarray:
        return img[window]


class Train:
    """The training pipeline: resize by a random factor, crop, augment.

    Args:
        short, long: as in `fitted`.
        scale: lowest and highest random factor of that size. With `short=long=crop=1024`, (0.1, 2.0) is large-scale
            jitter (Ghiasi et al., CVPR 2021, arXiv 2012.07177); (0.8, 1.0) is about detectron2's multi-scale training.
        crop: side of the random window that is cut; None cuts none.
        augment: albumentations transforms applied after that. Those that move pixels must sample masks by nearest
            neighbour, as is their default.

    Raises:
        ConfigError: a length or factor is out of its range.
    """

    def __init__(
        self,
        short: int | None = None,
        long: int | None = None,
        *,
        scale: Sequence[float] = (1.0, 1.0),
        crop: int | None = None,
        augment: Sequence[albumentations.BasicTransform | albumentations.BaseCompose] = (),
    ) -> None:
        _check_sides("train", short=short, long=long, crop=crop)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ConfigError(f"transforms.train.scale is [lowest, highest] above 0, found {list(scale)}")
        resize = KeepRatio(short, long, (float(scale[0]), float(scale[1])))
        cut = [] if crop is None else [Crop(crop)]
        self._pipeline = albumentations.Compose([resize, *cut, *augment])

    def __call__(self, photo: Photo, maps: Maps, seed: Sequence[int]) -> Transformed:
        """Augment a photo and its label maps; the same seed gives the same result in every process."""
        generator = np.random.default_rng(np.random.SeedSequence(list(seed)))
        self._pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        return _apply(self._pipeline, photo, maps)


class Eval:
    """The evaluation pipeline: resize (`fitted`). Its size is part of the operating point.

    Raises:
        ConfigError: a length is out of its range.
    """

    def __init__(self, short: int | None = None, long: int | None = None) -> None:
        _check_sides("eval", short=short, long=long)
        self._pipeline = albumentations.Compose([KeepRatio(short, long)])

    def __call__(self, photo: Photo, maps: Maps) -> Transformed:
        """Resize a photo and its label maps to the network's input."""
        return _apply(self._pipeline, photo, maps)


@dataclass(frozen=True)
class Transforms:
    """What becomes of a photo: in training, and wherever a network is evaluated, timed or used."""

    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)


def _check_sides(pipeline: str, **sides: int | None) -> None:
    for name, side in sides.items():
        if side is not None and side < 1:
            raise ConfigError(f"transforms.{pipeline}.{name} is a number of pixels or null, found {side}")
    short, long = sides["short"], sides["long"]
    if short is not None and long is not None and long < short:
        raise ConfigError(f"transforms.{pipeline}.long is at least its short, found long={long} and short={short}")


def _apply(pipeline: albumentations.Compose, photo: Photo, maps: Maps) -> Transformed:
    # A list, not a stack: albumentations raises on a stack of no masks.
    done = pipeline(image=photo, masks=list(maps))
    return done["image"], list(done["masks"])
