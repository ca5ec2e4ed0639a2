"""Frozen norms folded into the convolutions before them: one pass over the features less for each, the same numbers."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from timm.models._features import FeatureListNet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

IN_ORDER = (nn.Sequential, FeatureListNet, BasicBlock, Bottleneck)
"""Modules that run a convolution and then the norm that was registered after it."""


class FoldedConv(nn.Conv2d):
    """A convolution that scales its weights by what a frozen norm would scale its output by.

    The norm keeps its buffers, so that names and shapes of all weights stay as they were; gradients are the same too.
    """

    def __init__(self, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=False,
            padding_mode=conv.padding_mode,
        )
        self.weight = conv.weight
        self._norm = (norm,)  # in a tuple it is no child, whose buffers would have two names

    def forward(self, input: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E _h _w"]:
        (norm,) = self._norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        return self._conv_forward(input, self.weight * scale.view(-1, 1, 1, 1), shift)


class FoldedNorm(FrozenBatchNorm2d):
    """The buffers of a norm that the convolution before it has applied."""

    def __init__(self, norm: FrozenBatchNorm2d) -> None:
        super().__init__(len(norm.weight), norm.eps)
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)  # the same, of the same type and device

    def forward(self, x: Tensor) -> Tensor:
        return x


@torch.no_grad()
def fold_frozen_norms(module: nn.Module) -> nn.Module:
    """`module` with every convolution that a frozen norm follows doing the norm's work, where the order is known."""
    for parent in list(module.modules()):
        if isinstance(parent, IN_ORDER) and not (isinstance(parent, nn.Sequential) and _overridden(parent)):
            for (name, conv), (follower, norm) in pairwise(list(parent.named_children())):
                if type(conv) is nn.Conv2d and conv.bias is None and type(norm) is FrozenBatchNorm2d:
                    folded = FoldedNorm(norm)
                    setattr(parent, name, FoldedConv(conv, folded))
                    setattr(parent, follower, folded)
    return module


def _overridden(sequence: nn.Sequential) -> bool:
    """Whether a subclass runs its children in a way of its own."""
    return type(sequence).forward is not nn.Sequential.forward
