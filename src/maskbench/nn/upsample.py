"""Ways to double the side of a map (the question of Mask R-CNN's mask head, of decoders and of FCNs)."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from maskbench.nn.blocks import kaiming

Upsample = Callable[[int], nn.Module]
"""Builds the step for a number of channels, which it keeps."""


class TransposedConv(nn.ConvTranspose2d):
    """A 2 × 2 transposed convolution of stride 2: each cell becomes four of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, stride=2)
        kaiming(self)


class NearestConv(nn.Sequential):
    """Every cell four times, then a 3 × 3 convolution, which leaves no checkerboard (Odena et al., Distill 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, padding=1))
        kaiming(self[1])


class BilinearConv(nn.Sequential):
    """Bilinear interpolation, then a 3 × 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        kaiming(self[1])
