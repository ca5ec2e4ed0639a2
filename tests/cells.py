"""What tests of bottom-up methods share: targets of rectangles, and networks that say the truth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskbench.nn.backbone import Backbone
from maskbench.ops.grouping import true_cells
from maskbench.ops.masks import pairwise_iou
from maskbench.structures import Frame, Instances, Masks

STRIDE = 4
FRAME = Frame(1, (64, 64), (64, 64))


def narrow(strides: Sequence[int] = (4, 8, 16, 32)) -> Backbone:
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}
    return Backbone("resnet18", strides=strides, options=options)


def rectangles(size: tuple[int, int], *boxes: tuple[int, int, int, int], labels: Sequence[int]) -> Instances:
    """Boxes of left, top, right and bottom, filled."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.tensor(labels), torch.ones(len(boxes)))


def semantic_logits(target: Instances, classes: int = 2, stride: int = STRIDE) -> Tensor:
    """Class logits that say the truth, of all cells."""
    labels = torch.cat([target.labels, torch.tensor([classes])])[true_cells(target, stride)]
    return 20 * F.one_hot(labels, classes + 1).float().permute(2, 0, 1)


def one_hot(classes: Tensor, count: int) -> Tensor:
    """A semantic map that is sure."""
    return F.one_hot(classes, count).permute(2, 0, 1).float()


def matched(found: Instances, wanted: Instances) -> tuple[Tensor, Tensor]:
    """The row of `found` that overlaps each of `wanted` most, and by how much."""
    overlap, row = pairwise_iou(wanted.masks.dense(), found.masks.dense()).max(dim=1)
    return row, overlap


def assert_each_found(found: Sequence[Instances], wanted: Sequence[Instances], overlap: float) -> None:
    """In each image every object is found once, of its class and by more than this IoU."""
    for instances, objects in zip(found, wanted, strict=True):
        row, shared = matched(instances, objects)
        assert shared.min() > overlap
        assert sorted(row.tolist()) == list(range(len(objects)))
        assert torch.equal(instances.labels[row], objects.labels)
