"""Two photos of discs, drawn by hand, as a loader would hand them to a method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from maskbench.ops import suppress
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


def discs(drawn: tuple[tuple[int, int, int, int], ...], size: Size, scale: tuple[float, float]) -> Instances:
    """The discs as an image of `size` sees them that has `scale` network pixels a pixel of its own."""
    y = (torch.arange(size[0]) + 0.5)[:, None] * scale[0]
    x = (torch.arange(size[1]) + 0.5)[None, :] * scale[1]
    masks = Masks(torch.stack([(y - cy) ** 2 + (x - cx) ** 2 < radius**2 for cy, cx, radius, _ in drawn]))
    labels = torch.tensor([label for *_, label in drawn])
    return Instances(masks, masks.boxes(), labels, torch.ones(len(drawn)))


def paint(target: Instances, frame: Frame) -> Tensor:
    """Grey noise with discs in the colour of their class; black where the batch is padded."""
    image = torch.randint(60, 120, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    for mask, label in zip(target.masks.dense(), target.labels.tolist(), strict=True):
        image[:, mask] = 40
        image[2 * label, mask] = 230
    image[:, frame.resized[0] :] = 0
    image[:, :, frame.resized[1] :] = 0
    return image


@pytest.fixture(scope="session")
def classes() -> tuple[str, ...]:
    return CLASSES


@pytest.fixture(scope="session")
def batch() -> Batch:
    targets = tuple(discs(drawn, (SIDE, SIDE), (1, 1)) for drawn in DISCS)
    images = torch.stack([paint(target, frame) for target, frame in zip(targets, FRAMES, strict=True)])
    return Batch(images, targets, FRAMES)


@pytest.fixture(scope="session")
def truth() -> list[Instances]:
    """The same discs in the pixels of their photos."""
    return [discs(drawn, frame.photo, frame.scale) for drawn, frame in zip(DISCS, FRAMES, strict=True)]


@pytest.fixture
def suppressed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """What Matrix NMS is given while the test runs, image by image (masks, labels, scores), and what it makes of it."""
    seen: list[tuple[Tensor, ...]] = []
    matrix_nms = suppress.matrix_nms

    def watched(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
        seen.append((masks, labels, scores, matrix_nms(masks, labels, scores, sigma)))
        return seen[-1][-1]

    monkeypatch.setattr(suppress, "matrix_nms", watched)
    return seen


@pytest.fixture(scope="session")
def without_objects(batch: Batch) -> Batch:
    return replace(batch, targets=tuple(Instances.empty((SIDE, SIDE)) for _ in FRAMES))
