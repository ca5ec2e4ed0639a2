"""Converted weights into a method, all of them, or all but the heads of other classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from maskbench.errors import WeightsError
from maskbench.methods.base import Segmenter
from maskbench.weights.accounting import Account, class_heads, without
from maskbench.weights.converting import Published


def fit(network: nn.Module, weights: Mapping[str, Tensor], *, other_classes: bool = False) -> tuple[str, ...]:
    """Load converted weights.

    Args:
        network: a method.
        weights: under its names.
        other_classes: whether heads may be left as they are where the network has another number of classes.

    Returns:
        The layers that were left as they are.

    Raises:
        WeightsError: one has no place, is missing or has another shape; says which.
    """
    own = network.state_dict()
    heads = class_heads(Account.of(weights, own)) if other_classes else set()
    fitting = without(weights, heads)
    if account := Account.of(fitting, without(own, heads)):
        raise WeightsError(f"the weights don't fit {type(network).__name__}:{account}")
    network.load_state_dict(fitting, strict=False)  # counters and heads are not among them
    return tuple(sorted(heads))


def start(method: Segmenter, published: Published) -> tuple[str, ...]:
    """Let a method start from a checkpoint; heads stay as they are where it has another number of classes.

    Returns:
        The layers that were left as they are.

    Raises:
        WeightsError: they don't fit, or its backbone sees photos in another way.
    """
    if published.method is None:
        raise WeightsError("holds a backbone alone: name it as backbone.weights=FILE")
    backbone, node = method.backbone, published.backbone
    wanted = {name: node[name] for name in ("mean", "std")} | {"stride_in_1x1": node.get("stride_in_1x1", False)}
    found: dict[str, Any] = {
        "mean": [round(value, 3) for value in backbone.mean.flatten().tolist()],
        "std": [round(value, 3) for value in backbone.std.flatten().tolist()],
        "stride_in_1x1": backbone.stride_in_1x1,
    }
    other = [name for name in wanted if not _equal(found[name], wanted[name])]
    if other:
        told = " ".join(f"++backbone.{name}={str(wanted[name]).replace(' ', '')}" for name in other)
        raise WeightsError(f"its backbone was trained with {told}: say so, or it would not see what it has learnt from")
    return fit(method, published.weights, other_classes=True)


def _equal(found: list[float] | bool, wanted: list[float] | bool) -> bool:
    return torch.allclose(torch.tensor(found).float(), torch.tensor(wanted).float(), atol=1e-2)
