"""What a layout is: names, and the facts that no name reveals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from maskbench.weights.renaming import Rules

RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Style:
    """How a backbone was trained.

    Args:
        mean: of the pixels, in RGB, 0…255.
        std: likewise.
        bgr: whether the first convolution takes blue first.
        stride_in_1x1: whether a block that halves the map does so in its first convolution.
        norm_eps: what its batch normalisation adds to the variance.
        frozen_norm: whether its statistics and affine parameters stayed as they were.
    """

    mean: tuple[float, ...] = RGB_MEAN
    std: tuple[float, ...] = RGB_STD
    bgr: bool = False
    stride_in_1x1: bool = False
    norm_eps: float = 1e-5
    frozen_norm: bool = True


STYLES: dict[str, Style] = {
    "pytorch": Style(),
    # MSRA's original ResNets, which detectron2 and MMDetection's `caffe` models start from
    "caffe": Style(std=(1.0, 1.0, 1.0), bgr=True, stride_in_1x1=True),
    # ResNeXt-101-32x8d as trained with Caffe2
    "caffe2": Style(bgr=True),
    # maskrcnn_resnet50_fpn, whose frozen normalisation adds nothing
    "torchvision": Style(norm_eps=0.0),
    # maskrcnn_resnet50_fpn_v2, whose normalisation was trained
    "torchvision_v2": Style(frozen_norm=False),
}
"""By the name that the setting `style` has."""


@dataclass(frozen=True)
class Layout:
    """How one code base writes its checkpoints.

    Args:
        methods: our method's stem → the rules for its names.
        styles: those that its backbones may have, the usual one first.
        usual: the usual style where it is another: of a `resnext`, of a method whose pyramid is `normed`, or of a
            `backbone` published alone.
        ignored: regular expressions of what is no weight of ours: anchors, pixel statistics, a classifier.
        arrange: brings renamed weights into our order, of classes for instance.
        settings: of our methods that follow from the layout and not from shapes; a nested part by its `_target_`.
        pixels: names of the pixels' mean and deviation in the order of the channels, which old files have.
    """

    methods: Mapping[str, Rules]
    styles: tuple[str, ...]
    usual: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    arrange: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pixels: tuple[str, str] | None = None
