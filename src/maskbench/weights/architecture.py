"""What shapes tell of a network: its backbone by timm's name, and the settings of a method."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from maskbench.errors import WeightsError
from maskbench.methods.base import Segmenter
from maskbench.methods.cascade_mask_rcnn import CascadeMaskRCNN
from maskbench.methods.decoupled_solo import DecoupledSOLO
from maskbench.methods.htc import HTC
from maskbench.methods.mask_rcnn import MaskRCNN
from maskbench.methods.point_rend import PointRend
from maskbench.methods.solo import SOLO
from maskbench.methods.solov2 import SOLOv2

BODY = "backbone.body."

RESNETS: dict[tuple[tuple[int, ...], int, int, int], str] = {
    # blocks of each stage, convolutions of a block, groups and channels of a group in the first stage
    ((2, 2, 2, 2), 2, 1, 64): "resnet18",
    ((3, 4, 6, 3), 2, 1, 64): "resnet34",
    ((3, 4, 6, 3), 3, 1, 64): "resnet50",
    ((3, 4, 23, 3), 3, 1, 64): "resnet101",
    ((3, 8, 36, 3), 3, 1, 64): "resnet152",
    ((3, 4, 6, 3), 3, 1, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), 3, 1, 128): "wide_resnet101_2",
    ((3, 4, 6, 3), 3, 32, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 3, 32, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), 3, 32, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 3, 64, 4): "resnext101_64x4d",
}
"""timm's names."""


class Shapes:
    """Sizes of weights under our names; of what is missing there is none, and the accounting tells of it."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    def size(self, name: str, axis: int = 0) -> int | None:
        return self.weights[name].shape[axis] if name in self.weights else None

    def named(self, pattern: str) -> list[str]:
        """The names of a pattern, in the order of their numbers."""
        found = [name for name in self.weights if re.fullmatch(pattern, name)]
        return sorted(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def count(self, pattern: str) -> int | None:
        return len(self.named(pattern)) or None

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.weights)


def resnet(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of our backbone for the weights under `backbone.body`: timm's name, or widths and depths.

    Raises:
        WeightsError: they are no ResNet's.
    """
    shapes = Shapes(weights)
    stages = [f"{BODY}layer{stage}" for stage in range(1, 5)]
    convs = 3 if shapes.has(f"{stages[0]}.0.conv3.") else 2
    blocks = [shapes.count(rf"{re.escape(stage)}\.\d+\.conv1\.weight") or 0 for stage in stages]
    outputs = [shapes.size(f"{stage}.0.conv{convs}.weight") or 0 for stage in stages]
    width, group = (shapes.size(f"{stages[0]}.0.conv2.weight", axis) or 0 for axis in (0, 1))
    if 0 in (*blocks, *outputs, width, group):
        raise WeightsError("the backbone is no ResNet that torchvision's names describe (conv1, bn1, layer1 … layer4)")
    channels = [size // (4 if convs == 3 else 1) for size in outputs]
    groups = width // group
    wide = [64 * 2**stage for stage in range(4)]
    if channels == wide and (name := RESNETS.get((tuple(blocks), convs, groups, group))):
        return {"name": name}
    options: dict[str, Any] = {"layers": blocks, "channels": channels}
    if convs == 3 and (groups, group) != (1, channels[0]):
        options |= {"cardinality": groups, "base_width": group * 64 // channels[0]}
    return {"name": "resnet50" if convs == 3 else "resnet18", "options": options}


Settings = Mapping[str, int | bool | list[int] | list[float] | None]


class Read(NamedTuple):
    """What the shapes of a method's weights tell: its number of classes and its settings."""

    classes: int | None
    settings: Settings


def _two_stage(shapes: Shapes, box_head: str) -> Settings:
    return {"width": shapes.size("fpn.lateral.0.weight"), "box_width": shapes.size(f"{box_head}.hidden.1.weight")}


def _classes(shapes: Shapes, box_head: str) -> int | None:
    """Without background, which is the last."""
    count = shapes.size(f"{box_head}.classify.weight")
    return None if count is None else count - 1


def _mask_rcnn(shapes: Shapes) -> Read:
    settings = {
        **_two_stage(shapes, "box_head"),
        "rpn_depth": shapes.count(r"rpn\.convs\.\d+\.weight"),
        "box_convs": shapes.count(r"box_head\.convs\.\d+\.weight"),
        "mask_width": shapes.size("mask_head.convs.0.weight"),
        "mask_depth": shapes.count(r"mask_head\.convs\.\d+\.weight"),
        "norm": shapes.has("fpn.lateral.0.norm."),
    }
    return Read(_classes(shapes, "box_head"), settings)


def _overlaps(shapes: Shapes) -> list[float]:
    """The paper's, as many as there are stages."""
    return [0.5, 0.6, 0.7, 0.75][: shapes.count(r"cascade\.heads\.\d+\.classify\.weight")]


def _cascade(shapes: Shapes) -> Read:
    settings = {
        **_two_stage(shapes, "cascade.heads.0"),
        "overlaps": _overlaps(shapes),
        "mask_width": shapes.size("mask_heads.0.convs.0.weight"),
        "mask_depth": shapes.count(r"mask_heads\.0\.convs\.\d+\.weight"),
    }
    return Read(_classes(shapes, "cascade.heads.0"), settings)


def _htc(shapes: Shapes) -> Read:
    settings = {
        **_two_stage(shapes, "cascade.heads.0"),
        "overlaps": _overlaps(shapes),
        "mask_depth": shapes.count(r"mask_heads\.0\.convs\.\d+\.weight"),
        "mask_flow": shapes.has("flow."),
        "semantic": shapes.has("semantic."),
        "semantic_classes": shapes.size("semantic.classify.weight"),
    }
    return Read(_classes(shapes, "cascade.heads.0"), settings)


def _point_rend(shapes: Shapes) -> Read:
    classes, cells = _classes(shapes, "box_head"), shapes.size("coarse_head.logits.weight")
    settings = {
        **_two_stage(shapes, "box_head"),
        "coarse_width": shapes.size("coarse_head.hidden.1.weight"),
        "coarse_size": math.isqrt(cells // classes) if cells and classes else None,
        "point_width": shapes.size("refinement.layers.0.weight"),
        "point_depth": shapes.count(r"refinement\.layers\.\d+\.weight"),
    }
    return Read(classes, settings)


def _solo(shapes: Shapes) -> Read:
    masks = [shapes.size(name) for name in shapes.named(r"masks\.\d+\.weight")]
    settings = {
        "width": shapes.size("fpn.lateral.0.weight"),
        "head_width": shapes.size("mask_tower.0.0.weight"),
        "head_depth": shapes.count(r"mask_tower\.\d+\.0\.weight"),
        "grids": [math.isqrt(cells) for cells in masks if cells] or None,
    }
    return Read(shapes.size("classify.weight"), settings)


def _decoupled_solo(shapes: Shapes) -> Read:
    columns = [shapes.size(name) for name in shapes.named(r"columns\.\d+\.weight")]
    settings = {
        "width": shapes.size("fpn.lateral.0.weight"),
        "head_width": shapes.size("mask_towers.0.0.0.weight"),
        "head_depth": shapes.count(r"mask_towers\.0\.\d+\.0\.weight"),
        "shared_tower": not shapes.has("mask_towers.1."),
        "grids": [side for side in columns if side] or None,
    }
    return Read(shapes.size("classify.weight"), settings)


def _solov2(shapes: Shapes) -> Read:
    settings = {
        "width": shapes.size("fpn.lateral.0.weight"),
        "head_width": shapes.size("kernel_tower.0.0.weight"),
        "head_depth": shapes.count(r"kernel_tower\.\d+\.0\.weight"),
        "feature_width": shapes.size("mask_features.chains.0.0.0.weight"),
        "kernel_channels": shapes.size("kernel.weight"),
    }
    return Read(shapes.size("classify.weight"), settings)


METHODS: dict[str, tuple[type[Segmenter], Callable[[Shapes], Read]]] = {
    "mask_rcnn": (MaskRCNN, _mask_rcnn),
    "cascade_mask_rcnn": (CascadeMaskRCNN, _cascade),
    "htc": (HTC, _htc),
    "point_rend": (PointRend, _point_rend),
    "solo": (SOLO, _solo),
    "decoupled_solo": (DecoupledSOLO, _decoupled_solo),
    "solov2": (SOLOv2, _solov2),
}
"""By stem: the class, and what reads its settings."""


def read_settings(method: str, weights: Mapping[str, Tensor]) -> Read:
    """What the shapes tell; a setting that they don't tell is left at its default."""
    classes, settings = METHODS[method][1](Shapes(weights))
    return Read(classes, {name: value for name, value in settings.items() if value is not None})
