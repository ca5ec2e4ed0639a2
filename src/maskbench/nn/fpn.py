"""Feature pyramid network (Lin et al., CVPR 2017, arXiv 1612.03144)."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn.blocks import convolution
from maskbench.phases import phase


class FPN(nn.Module):
    """Maps of one width on every level of a backbone, and one level more.

    Args:
        channels: of the backbone's maps, fine to coarse.
        strides: of the same maps.
        width: channels of the pyramid.
        norm: whether its convolutions have batch normalisation, and not a bias.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], width: int = 256, *, norm: bool = False
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(convolution(depth, width, kernel=1, norm=norm) for depth in channels)
        self.output = nn.ModuleList(convolution(width, width, norm=norm) for _ in channels)
        for layer in (*self.lateral, *self.output):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        self.strides = (*strides, 2 * strides[-1])
        self.width = width

    @phase("backbone")
    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> list[Tensor]:
        """P2…P5 and P6, which is every second cell of P5."""
        levels: list[Tensor] = []
        above: Tensor | None = None
        for lateral, output, feature in reversed(list(zip(self.lateral, self.output, features, strict=True))):
            merged = lateral(feature)
            if above is not None:  # in place, no gradient asks for a lateral map: P2's alone takes 69 MB of a photo
                merged += F.interpolate(above, size=merged.shape[-2:], mode="nearest")
            levels.insert(0, output(merged))
            above = merged
        # as a pooling, and not as a slice, whose strides would bind the sizes of an exported network's input
        return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2)]
