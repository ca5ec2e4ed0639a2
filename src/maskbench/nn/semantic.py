"""Dense decoders: from a pyramid to one map at the stride of its finest level."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from maskbench.nn.blocks import ConvNormReLU, with_coordinates


class SemanticFPN(nn.Module):
    """Each level goes up to the finest by convolutions and ×2 steps, and the levels are summed.

    It is the decoder of Panoptic FPN (Kirillov et al., CVPR 2019, section 3.1) and the mask feature branch of SOLOv2,
    which differ in width, in the coordinates and in the initial weights.

    Args:
        channels: of each level.
        levels: how many levels to sum, from the finest.
        width: of the chains.
        outputs: channels of the result, after a last 1×1 convolution with norm and ReLU.
        coordinates: whether the coarsest level gets the position of its cells (SOLOv2, section 3.2).
        std: of the initial weights (None: after He et al., as Panoptic FPN's).
    """

    def __init__(
        self,
        channels: int,
        levels: int = 4,
        width: int = 128,
        outputs: int = 256,
        coordinates: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.coordinates = coordinates
        chains = []
        for level in range(levels):
            extra = 2 if coordinates and level == levels - 1 else 0
            chain: list[nn.Module] = [ConvNormReLU(channels + extra, width, std=std)]
            for step in range(level):
                chain += [] if step == 0 else [ConvNormReLU(width, width, std=std)]
                chain.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            chains.append(nn.Sequential(*chain))
        self.chains = nn.ModuleList(chains)
        self.output = ConvNormReLU(width, outputs, kernel=1, std=std)

    def forward(self, features: Sequence[Float[Tensor, "B D _h _w"]]) -> Float[Tensor, "B F h w"]:
        """Levels fine to coarse (more than are summed may be given) → features at the finest level's stride, ≥ 0."""
        levels = list(features[: len(self.chains)])
        if self.coordinates:
            levels[-1] = with_coordinates(levels[-1])
        first, *others = (chain(level) for chain, level in zip(self.chains, levels, strict=True))
        for other in others:
            first = first + other
        return self.output(first)
