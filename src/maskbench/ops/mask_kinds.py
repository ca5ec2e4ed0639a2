"""What the channels of a mask head stand for (Mask R-CNN, sections 3 and 4.2, table 2b).

P instances   K channels of a mask head   C classes   *m places: cells of a grid, or points
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class MaskKind(Protocol):
    """Reads and trains the channels of a mask head."""

    def channels(self, classes: int) -> int:
        """K, for a number of classes."""

    def margin(self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"]) -> Float[Tensor, " P *m"]:
        """Log odds that a place lies inside its instance."""

    def loss(
        self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"], wanted: Float[Tensor, " P *m"]
    ) -> Float[Tensor, ""]:
        """Mean over instances and places of how far the logits are from `wanted`, 1 inside and 0 outside."""


@dataclass(frozen=True)
class PerClassSigmoid:
    """A mask for each class, of which an instance reads and trains its own alone: classes don't compete."""

    def channels(self, classes: int) -> int:
        return classes

    def margin(self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"]) -> Float[Tensor, " P *m"]:
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def loss(
        self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"], wanted: Float[Tensor, " P *m"]
    ) -> Float[Tensor, ""]:
        return _binary(self.margin(logits, labels), wanted)


@dataclass(frozen=True)
class ClassAgnostic:
    """One mask, whatever the class."""

    def channels(self, classes: int) -> int:
        return 1

    def margin(self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"]) -> Float[Tensor, " P *m"]:
        return logits[:, 0]

    def loss(
        self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"], wanted: Float[Tensor, " P *m"]
    ) -> Float[Tensor, ""]:
        return _binary(logits[:, 0], wanted)


@dataclass(frozen=True)
class Softmax:
    """Classes and background compete at every place, as in semantic segmentation; the last channel is background."""

    def channels(self, classes: int) -> int:
        return classes + 1

    def margin(self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"]) -> Float[Tensor, " P *m"]:
        own = F.one_hot(labels, logits.shape[1]).bool().view(*logits.shape[:2], *[1] * (logits.ndim - 2))
        rivals = logits.masked_fill(own, -torch.inf).logsumexp(dim=1)
        return logits[torch.arange(len(labels), device=labels.device), labels] - rivals

    def loss(
        self, logits: Float[Tensor, "P K *m"], labels: Int64[Tensor, " P"], wanted: Float[Tensor, " P *m"]
    ) -> Float[Tensor, ""]:
        if len(labels) == 0:
            return logits.sum() * 0
        inside = labels.view(-1, *[1] * (wanted.ndim - 1))
        return F.cross_entropy(logits, torch.where(wanted >= 0.5, inside, logits.shape[1] - 1))


def _binary(logits: Float[Tensor, " P *m"], wanted: Float[Tensor, " P *m"]) -> Float[Tensor, ""]:
    """Binary cross-entropy; without an instance a 0 that still gives every weight its gradient."""
    return F.binary_cross_entropy_with_logits(logits, wanted) if len(logits) else logits.sum() * 0
