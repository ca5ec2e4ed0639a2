"""What the network of each bottom-up method would say that knows the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import torch

from cells import semantic_logits
from maskbench.methods import centre_offset, discriminative, flow_field, semantic, spatial_embedding
from maskbench.methods.bottom_up import BottomUp
from maskbench.ops.flows import flows
from maskbench.ops.grouping import position, true_cells
from maskbench.structures import Instances


@singledispatch
def answer(method: BottomUp, targets: Sequence[Instances]) -> Any:
    """The raw output for images with these objects."""
    raise NotImplementedError(f"nobody has written down what {type(method).__name__} would say")


@answer.register
def _(method: semantic.Semantic, targets: Sequence[Instances]) -> semantic.Raw:
    return semantic.Raw(torch.stack([semantic_logits(target, stride=method.mask_stride) for target in targets]))


@answer.register
def _(method: discriminative.Discriminative, targets: Sequence[Instances], classes: int = 2) -> discriminative.Raw:
    """Object n lies on the n-th axis, 10 from the others."""
    cells = torch.stack([true_cells(target, method.mask_stride) for target in targets])
    logits = torch.stack([semantic_logits(target, classes, method.mask_stride) for target in targets])
    return discriminative.Raw(logits, 10 * torch.eye(8)[cells].permute(0, 3, 1, 2))


@answer.register
def _(method: flow_field.FlowField, targets: Sequence[Instances]) -> flow_field.Raw:
    cells = torch.stack([true_cells(target, method.mask_stride) for target in targets])
    logits = torch.stack([semantic_logits(target, stride=method.mask_stride) for target in targets])
    return flow_field.Raw(logits, method.flow_scale * flows(cells))


@answer.register
def _(method: centre_offset.CentreOffset, targets: Sequence[Instances]) -> centre_offset.Raw:
    truth = [method.truth(true_cells(target, method.mask_stride), len(target)) for target in targets]
    return centre_offset.Raw(
        torch.stack([semantic_logits(target, stride=method.mask_stride) for target in targets]),
        torch.stack([image.heat[None] for image in truth]),
        torch.stack([image.offset for image in truth]),
    )


@answer.register
def _(
    method: spatial_embedding.SpatialEmbedding, targets: Sequence[Instances], sigma: float = 0.05
) -> spatial_embedding.Raw:
    """Every cell points at its object's middle, which reaches `sigma` units."""
    offsets, seeds = [], []
    for target in targets:
        cells = true_cells(target, method.mask_stride)
        place = method.step * position(cells.shape, cells.device).permute(2, 0, 1)
        offset, seed = torch.zeros_like(place), torch.full((2, *cells.shape), -20.0)
        for number, label in enumerate(target.labels):
            own = cells == number
            offset[:, own] = place[:, own].mean(dim=1, keepdim=True) - place[:, own]
            seed[label, own] = 20.0
        offsets.append(offset.atanh())
        seeds.append(seed)
    sharpness = torch.full_like(torch.stack(offsets), math.log(1 / (2 * sigma**2)) / 10)
    return spatial_embedding.Raw(torch.stack(offsets), sharpness, torch.stack(seeds))
