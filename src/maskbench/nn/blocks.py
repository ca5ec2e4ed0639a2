"""Small blocks that heads are built of, and the initial weights the papers give them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

CACHED_VALUES = 1 << 19
"""2 MB in single precision."""


class ConvNormReLU(nn.Sequential):
    """A convolution without bias, group normalisation and ReLU.

    Args:
        channels: that come in.
        width: that go out.
        kernel: cells a side.
        groups: of the normalisation, at most.
        std: of the initial weights, 0.01 as SOLO's heads are released (None: after He et al.). The smaller they are,
            the more the first steps of an optimiser like Adam change them.
        dilation: cells from one that the kernel sees to the next.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int = 3,
        groups: int = 32,
        std: float | None = 0.01,
        dilation: int = 1,
    ) -> None:
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation, bias=False)
        super().__init__(conv, nn.GroupNorm(math.gcd(groups, width), width), nn.ReLU(inplace=True))
        if std is None:
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        else:
            nn.init.normal_(conv.weight, std=std)


class ConvBatchNorm(nn.Conv2d):
    """A convolution without bias, then batch normalisation.

    The norm lies inside it, so that the convolution's weight has the same name with and without one.
    """

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__(channels, width, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, input: Float[Tensor, "B D h w"]) -> Float[Tensor, "B E h w"]:
        return self.norm(super().forward(input))


def convolution(channels: int, width: int, kernel: int = 3, *, norm: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size, with a bias or with batch normalisation."""
    return ConvBatchNorm(channels, width, kernel) if norm else nn.Conv2d(channels, width, kernel, padding=kernel // 2)


def tower(channels: int, width: int, depth: int) -> nn.Sequential:
    """`depth` 3×3 convolutions with normalisation, the first from `channels`."""
    return nn.Sequential(*(ConvNormReLU(channels if step == 0 else width, width) for step in range(depth)))


def predictor(channels: int, outputs: int, kernel: int = 3, prior: float | None = None) -> nn.Conv2d:
    """The last convolution of a head; with `prior` its sigmoid starts at that probability (RetinaNet, section 4.1)."""
    conv = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, 0.0 if prior is None else -math.log((1 - prior) / prior))
    return conv


def kaiming(*layers: nn.Module) -> None:
    """Weights after He et al. (ICCV 2015, eq. 14, over the outputs), no bias.

    As in MMDetection also of a head's last convolution, whose logits are the larger the fewer classes there are.
    """
    for layer in layers:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def with_coordinates(features: Float[Tensor, "B D h w"], axes: str = "xy") -> Float[Tensor, "B _e h w"]:
    """The features with a channel more for each axis, from −1 to 1, both ends included (CoordConv, Liu et al. 2018).

    `axes` is "xy", one of its letters, or "" for the features alone.
    """
    batch, _, height, width = features.shape
    y, x = (_from_minus_one(side, features) for side in (height, width))
    grids = {"x": x.expand(batch, 1, height, width), "y": y[:, None].expand(batch, 1, height, width)}
    return torch.cat([features, *(grids[axis] for axis in axes)], dim=1)


def _from_minus_one(length: int, like: Tensor) -> Float[Tensor, " _l"]:
    """As many numbers from −1 to 1, both included (−1 alone), at equal steps."""
    if not torch.compiler.is_exporting():
        return torch.linspace(-1, 1, length, device=like.device, dtype=like.dtype)
    # the same but for the last bit; `linspace` would fix the size of an exported network's input
    places = torch.arange(length, device=like.device, dtype=torch.float32)
    return (2 * places / places[-1:].clamp(min=1) - 1).to(like.dtype)


def in_cache(work: Callable[..., Tensor], *inputs: Float[Tensor, "N ..."], values: int) -> Float[Tensor, "N ..."]:
    """`work` of all rows; on a CPU, unless it is learnt from, of as many at a time as its cache holds.

    Args:
        work: of some rows of the inputs → as many rows.
        inputs: of the same number of rows.
        values: numbers that a row becomes on the way.
    """
    step = max(1, CACHED_VALUES // values)
    if inputs[0].device.type != "cpu" or torch.is_grad_enabled() or len(inputs[0]) <= step:
        return work(*inputs)
    return torch.cat([work(*parts) for parts in zip(*(rows.split(step) for rows in inputs), strict=True)])


def zero_of(*tensors: Tensor) -> Float[Tensor, ""]:
    """A loss of 0 that still gives every weight behind the tensors a gradient, of zeros: nothing is a normal case."""
    return torch.stack([tensor.float().sum() * 0 for tensor in tensors]).sum()
