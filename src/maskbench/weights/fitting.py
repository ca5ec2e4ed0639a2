"""Weights into a network, all of them, or all but the heads of other classes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from maskbench.errors import WeightsError
from maskbench.weights.accounting import Account, class_heads, without


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
