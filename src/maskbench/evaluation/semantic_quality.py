"""How good a semantic map is that instances are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from maskbench.evaluation.records import Records
from maskbench.structures import Frame


class SemanticQuality(Records):
    """Mean IoU and pixel accuracy over the cells of all images, background being a class (as PASCAL VOC counts).

    Args:
        classes: their names, background aside.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = (*classes, "background")

    def update(self, areas: Sequence[Int64[Tensor, "3 C"]], frames: Sequence[Frame]) -> None:
        """Take what a method says of a batch (`Segmenter.semantic_areas`), nothing where it makes no map."""
        for area, frame in zip(areas, frames, strict=len(areas) > 0):
            self.keep(frame.image_id, area.tolist())

    def compute(self) -> dict[str, Any]:
        """`mIoU` over the classes that are or were taken to be somewhere, `pixel_accuracy`, and `IoU` by class.

        Empty where a method makes no semantic map.
        """
        images = self.merged()
        if not images:
            return {}
        right, true, taken = torch.tensor(images).sum(dim=0)
        either = true + taken - right
        iou = {
            name: int(part) / int(whole) for name, part, whole in zip(self.classes, right, either, strict=True) if whole
        }
        return {
            "mIoU": sum(iou.values()) / len(iou) if iou else 1.0,
            "pixel_accuracy": int(right.sum()) / max(1, int(true.sum())),
            "IoU": iou,
        }
