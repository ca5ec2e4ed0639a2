"""Ways to double the side of a map (the question of Mask R-CNN's mask head, of decoders and of FCNs).

N maps   D channels   K channels that are predicted
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.nn.blocks import kaiming


class Doubling(nn.Module):
    """A step that doubles the side of a map."""

    def meet(self, maps: Float[Tensor, "N D h w"], finer: Float[Tensor, "N E H W"]) -> Float[Tensor, "N D H W"]:
        """The doubled maps as large as finer ones: a last cell of an odd side covers one of theirs and not two."""
        return self(maps)[..., : finer.shape[-2], : finer.shape[-1]]

    def predict(self, maps: Float[Tensor, "N D h w"], last: nn.Conv2d) -> Float[Tensor, "N K 2*h 2*w"]:
        """What the last convolution of a head, 1×1, says of the doubled maps after ReLU."""
        return last(F.relu_(self(maps)))


Upsample = Callable[[int], Doubling]
"""Builds the step for a number of channels, which it keeps."""


class Nearest(Doubling, nn.Upsample):
    """Every cell four times, without weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(scale_factor=2, mode="nearest")


class Bilinear(Doubling, nn.Upsample):
    """Bilinear interpolation, without weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(scale_factor=2, mode="bilinear", align_corners=False)


class BedOfNails(Doubling):
    """Every cell at the top left of four, of which the others are 0, without weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, maps: Float[Tensor, "N D h w"]) -> Float[Tensor, "N D 2*h 2*w"]:
        count, channels, height, width = maps.shape
        bed = maps.new_zeros(count, channels, 2 * height, 2 * width)
        bed[:, :, ::2, ::2] = maps
        return bed


class MaxUnpool(Doubling):
    """Every cell where the finer map has the largest of its four, of which the others are 0, without weights.

    It is SegNet's: the way back of a 2 × 2 max-pooling of the finer map, which has as many channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def meet(self, maps: Float[Tensor, "N D h w"], finer: Float[Tensor, "N D H W"]) -> Float[Tensor, "N D H W"]:
        _, indices = F.max_pool2d(finer.detach(), 2, ceil_mode=True, return_indices=True)
        return F.max_unpool2d(maps, indices, (2, 2), output_size=finer.shape[-2:])

    def forward(self, maps: Float[Tensor, "N D h w"]) -> Tensor:
        raise ConfigError("max-unpooling asks a finer map where its maxima lie, and here is none: upsample otherwise")


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


class BilinearTransposedConv(Doubling, nn.ConvTranspose2d):
    """A 4 × 4 transposed convolution of stride 2 that begins as bilinear interpolation (Long et al., section 4.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1)
        tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(tent, tent))
        assert self.bias is not None
        nn.init.zeros_(self.bias)


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
