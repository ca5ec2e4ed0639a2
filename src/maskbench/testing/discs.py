"""Two photos of discs, drawn by hand, as a loader would hand them to a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from maskbench.structures import Batch, Frame, Instances, Masks, Size

CLASSES = ("red", "blue")
SIDE = 128  # of the batch, in network pixels

# Each photo is scaled by another factor, the second padded at the bottom.
FRAMES = (Frame(11, photo=(256, 256), resized=(128, 128)), Frame(12, photo=(90, 120), resized=(96, 128)))

# Centre y, centre x, radius in network pixels, and label; no two share a cell of a grid.
DISCS = (
    ((36, 40, 20, 0), (92, 92, 24, 1), (30, 98, 14, 0)),
    ((44, 38, 24, 1), (52, 98, 20, 0)),
)


def batch() -> Batch:
    """The photos with their discs."""
    targets = tuple(_discs(drawn, (SIDE, SIDE), (1, 1)) for drawn in DISCS)
    images = torch.stack([_paint(target, frame) for target, frame in zip(targets, FRAMES, strict=True)])
    return Batch(images, targets, FRAMES)


def without_objects() -> Batch:
    """The same photos, of which nobody has said what is on them."""
    return replace(batch(), targets=tuple(Instances.empty((SIDE, SIDE)) for _ in FRAMES))


def truth() -> list[Instances]:
    """The discs in the pixels of their photos."""
    return [_discs(drawn, frame.photo, frame.scale) for drawn, frame in zip(DISCS, FRAMES, strict=True)]


def _discs(drawn: Sequence[tuple[int, int, int, int]], size: Size, scale: tuple[float, float]) -> Instances:
    """The discs as an image of `size` sees them that has `scale` network pixels a pixel of its own."""
    y = (torch.arange(size[0]) + 0.5)[:, None] * scale[0]
    x = (torch.arange(size[1]) + 0.5)[None, :] * scale[1]
    masks = Masks(torch.stack([(y - cy) ** 2 + (x - cx) ** 2 < radius**2 for cy, cx, radius, _ in drawn]))
    labels = torch.tensor([label for *_, label in drawn])
    return Instances(masks, masks.boxes(), labels, torch.ones(len(drawn)))


def _paint(target: Instances, frame: Frame) -> Tensor:
    """Grey noise with discs in the colour of their class; black where the batch is padded."""
    image = torch.randint(60, 120, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    for mask, label in zip(target.masks.dense(), target.labels.tolist(), strict=True):
        image[:, mask] = 40
        image[2 * label, mask] = 230
    image[:, frame.resized[0] :] = 0
    image[:, :, frame.resized[1] :] = 0
    return image
