"""Ways to double the side of a map (the question of Mask R-CNN's mask head, of decoders and of FCNs).

N maps   D channels   K channels that are predicted
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn.blocks import kaiming


class Doubling(nn.Module):
    """A step that doubles the side of a map."""

    def predict(self, maps: Float[Tensor, "N D h w"], last: nn.Conv2d) -> Float[Tensor, "N K 2*h 2*w"]:
        """What the last convolution of a head, 1×1, says of the doubled maps after ReLU."""
        return last(F.relu_(self(maps)))


Upsample = Callable[[int], Doubling]
"""Builds the step for a number of channels, which it keeps."""


class TransposedConv(Doubling, nn.ConvTranspose2d):
    """A 2 × 2 transposed convolution of stride 2: each cell becomes four of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, stride=2)
        kaiming(self)

    def predict(self, maps: Float[Tensor, "N D h w"], last: nn.Conv2d) -> Float[Tensor, "N K 2*h 2*w"]:
        """The same as two products over cells, so that of the doubled maps only the prediction is laid out as a map."""
        assert self.bias is not None
        count, channels, height, width = maps.shape
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, channels)
        four = F.relu_(F.linear(maps.permute(0, 2, 3, 1), weight, self.bias.repeat(4)))
        said = F.linear(four.view(count, height, width, 2, 2, channels), last.weight.flatten(1), last.bias)
        return said.permute(0, 5, 1, 3, 2, 4).reshape(count, last.out_channels, 2 * height, 2 * width)


class NearestConv(Doubling, nn.Sequential):
    """Every cell four times, then a 3 × 3 convolution, which leaves no checkerboard (Odena et al., Distill 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, channels, 3, padding=1))
        kaiming(self[1])


class BilinearConv(Doubling, nn.Sequential):
    """Bilinear interpolation, then a 3 × 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        kaiming(self[1])
