"""Checkpoints as other code bases write them: names and shapes from their documentation, weights drawn on the spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Drawn = dict[str, Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

R50, R101 = (3, 4, 6, 3), (3, 4, 23, 3)


def drawn(shapes: Shapes, device: str = "cpu") -> Drawn:
    """Small weights, variances around one; on the device `meta` nothing but shapes."""
    state = {}
    for name, shape in shapes:
        scale = max(1, torch.Size(shape[1:]).numel()) ** -0.5
        value = torch.rand(shape, device=device) - 0.5
        state[name] = 1 + value if name.endswith(("running_var", "norm.weight", "gn.weight")) else value * 3 * scale
    return state


def layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def norm(name: str, width: int) -> Shapes:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (width,)


def resnet(
    name: Callable[..., str], layers: Sequence[int], planes: Sequence[int], groups: int = 1, group: int | None = None
) -> Shapes:
    """Bottleneck blocks; `name(stage, block, part)` says what a code base calls a convolution or `norm` of one.

    Args:
        name: stage 0 is the stem.
        layers: blocks of each stage.
        planes: a quarter of the channels of each stage.
        groups: of the second convolution.
        group: channels of one of them in the first stage.
    """
    yield from layer(name(0, 0, "conv1"), 64, 3, 7, 7, bias=False)
    yield from norm(name(0, 0, "norm1"), 64)
    inputs = 64
    for stage, (blocks, plane) in enumerate(zip(layers, planes, strict=True), start=1):
        width = plane if group is None else groups * group * plane // planes[0]
        for block in range(blocks):
            yield from layer(name(stage, block, "conv1"), width, inputs, 1, 1, bias=False)
            yield from layer(name(stage, block, "conv2"), width, width // groups, 3, 3, bias=False)
            yield from layer(name(stage, block, "conv3"), 4 * plane, width, 1, 1, bias=False)
            for part, size in (("norm1", width), ("norm2", width), ("norm3", 4 * plane)):
                yield from norm(name(stage, block, part), size)
            if block == 0:
                yield from layer(name(stage, block, "conv0"), 4 * plane, inputs, 1, 1, bias=False)
                yield from norm(name(stage, block, "norm0"), 4 * plane)
            inputs = 4 * plane


# detectron2 ----------------------------------------------------------------------------------------------------------


def detectron2_name(stage: int, block: int, part: str) -> str:
    conv = "shortcut" if part.endswith("0") else f"conv{part[-1]}"
    place = "stem" if stage == 0 else f"res{stage + 1}.{block}"
    return f"backbone.bottom_up.{place}.{conv}" + (".norm" if part.startswith("norm") else "")


def detectron2(
    method: str = "mask_rcnn",
    *,
    classes: int = 80,
    layers: Sequence[int] = R50,
    planes: Sequence[int] = (64, 128, 256, 512),
    width: int = 256,
    box_width: int = 1024,
    device: str = "cpu",
    **body: Any,
) -> Drawn:
    """As `tools/train_net.py` saves its model, below the key `model`."""

    def shapes() -> Shapes:
        yield from resnet(detectron2_name, layers, planes, **body)
        for level, plane in enumerate(planes, start=2):
            yield from layer(f"backbone.fpn_lateral{level}", width, 4 * plane, 1, 1)
            yield from layer(f"backbone.fpn_output{level}", width, width, 3, 3)
        head = "proposal_generator.rpn_head"
        yield from layer(f"{head}.conv", width, width, 3, 3)
        yield from layer(f"{head}.objectness_logits", 3, width, 1, 1)
        yield from layer(f"{head}.anchor_deltas", 12, width, 1, 1)
        stages = ["0.", "1.", "2."] if method == "cascade_mask_rcnn" else [""]
        for stage in stages:
            yield from layer(f"roi_heads.box_head.{stage}fc1", box_width, width * 49)
            yield from layer(f"roi_heads.box_head.{stage}fc2", box_width, box_width)
            yield from layer(f"roi_heads.box_predictor.{stage}cls_score", classes + 1, box_width)
            yield from layer(f"roi_heads.box_predictor.{stage}bbox_pred", 4 if stage else 4 * classes, box_width)
        if method == "point_rend":
            coarse, point = "roi_heads.mask_head.coarse_head", "roi_heads.mask_head.point_head"
            yield from layer(f"{coarse}.reduce_spatial_dim_conv", width, width, 2, 2)
            yield from layer(f"{coarse}.fc1", box_width, width * 49)
            yield from layer(f"{coarse}.fc2", box_width, box_width)
            yield from layer(f"{coarse}.prediction", classes * 49, box_width)
            for step in (1, 2, 3):
                yield from layer(f"{point}.fc{step}", width, width + classes, 1)
            yield from layer(f"{point}.predictor", classes, width + classes, 1)
        else:
            for step in (1, 2, 3, 4):
                yield from layer(f"roi_heads.mask_head.mask_fcn{step}", width, width, 3, 3)
            yield from layer("roi_heads.mask_head.deconv", width, width, 2, 2)
            yield from layer("roi_heads.mask_head.predictor", classes, width, 1, 1)

    return drawn(shapes(), device)


# MMDetection ---------------------------------------------------------------------------------------------------------


def mmdetection_name(stage: int, block: int, part: str) -> str:
    place = "backbone." if stage == 0 else f"backbone.layer{stage}.{block}."
    if part.endswith("0"):
        return f"{place}downsample.{0 if part.startswith('conv') else 1}"
    return place + part.replace("norm", "bn")


def mmdetection_solov2(
    *,
    classes: int = 80,
    layers: Sequence[int] = R50,
    planes: Sequence[int] = (64, 128, 256, 512),
    width: int = 256,
    head_width: int = 512,
    depth: int = 4,
    feature_width: int = 128,
    kernels: int = 256,
    device: str = "cpu",
    **body: Any,
) -> Drawn:
    """As MMEngine saves it, below the key `state_dict`."""

    def conv_gn(name: str, outputs: int, inputs: int, kernel: int = 3) -> Shapes:
        yield from layer(f"{name}.conv", outputs, inputs, kernel, kernel, bias=False)
        yield from layer(f"{name}.gn", outputs)

    def shapes() -> Shapes:
        yield from resnet(mmdetection_name, layers, planes, **body)
        for level, plane in enumerate(planes):
            yield from layer(f"neck.lateral_convs.{level}.conv", width, 4 * plane, 1, 1)
            yield from layer(f"neck.fpn_convs.{level}.conv", width, width, 3, 3)
        for step in range(depth):
            yield from conv_gn(f"mask_head.cls_convs.{step}", head_width, head_width if step else width)
            yield from conv_gn(f"mask_head.kernel_convs.{step}", head_width, head_width if step else width + 2)
        yield from layer("mask_head.conv_cls", classes, head_width, 3, 3)
        yield from layer("mask_head.conv_kernel", kernels, head_width, 3, 3)
        for level in range(4):
            for step in range(max(1, level)):
                inputs = feature_width if step else width + 2 * (level == 3)
                name = f"mask_head.mask_feature_head.convs_all_levels.{level}.conv{step}"
                yield from conv_gn(name, feature_width, inputs)
        yield from conv_gn("mask_head.mask_feature_head.conv_pred", kernels, feature_width, 1)

    return drawn(shapes(), device)


THIN = {"layers": (1, 1, 1, 1), "planes": (8, 8, 8, 8), "width": 16}
"""A network of which a forward pass takes milliseconds."""
