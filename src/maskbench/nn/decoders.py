"""Semantic decoders: from a backbone's maps to a map at their finest stride for each branch of a method.

B images   D channels of a map   F channels of a branch's map   h w cells at the finest stride

A branch that is told the position of its cells has it on the coarsest map that it reads, as SOLOv2's mask features do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.nn.blocks import ConvNormReLU, kaiming, with_coordinates
from maskbench.nn.fpn import FPN
from maskbench.nn.semantic import SemanticFPN
from maskbench.nn.upsample import BilinearTransposedConv, Doubling, MaxUnpool, TransposedConv, Upsample


class Branches(nn.Module):
    """A network for each branch, on the backbone's maps or on what a trunk makes of them for all.

    Args:
        width: channels of each branch's map.
        networks: of the branches, each from the maps, fine to coarse, to a map `[B F h w]`.
        trunk: what comes before them.
    """

    def __init__(self, width: int, networks: Iterable[nn.Module], trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.width = width
        self.trunk = nn.Identity() if trunk is None else trunk
        self.networks = nn.ModuleList(networks)

    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> list[Float[Tensor, "B {self.width} h w"]]:
        """The backbone's maps, fine to coarse → a map a branch."""
        maps = self.trunk(features)
        return [network(maps) for network in self.networks]


Decoder = Callable[[Sequence[int], Sequence[int], Sequence[bool]], Branches]
"""Builds the branches for channels and strides of a backbone's maps and an entry a branch: whether it is told the
position of its cells (CoordConv)."""


# One pyramid for all branches ----------------------------------------------------------------------------------------


def semantic_fpn(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    fpn_width: int = 256,
    width: int = 128,
) -> Branches:
    """Panoptic FPN's decoder (Kirillov et al., CVPR 2019, section 3.1) a branch, on a pyramid that they share."""
    _check_doubling(strides)
    pyramid = FPN(channels, strides, fpn_width)
    return Branches(width, map(partial(SemanticFPN, fpn_width, len(strides), width, width), coordinates), pyramid)


# FCN -----------------------------------------------------------------------------------------------------------------


class FCN(nn.Module):
    """A 1×1 convolution of each map, coarse doubled and added to the next finer; then bilinear to the finest stride.

    Fully convolutional networks (Long et al., CVPR 2015, arXiv 1411.4038, section 4.2). Theirs say the classes; these
    say `width` features, of which a method makes its own. All are trained at once.

    Args:
        finest: stride of the finest map that is read (32, 16 or 8: FCN-32s, 16s or 8s).
        located: whether it is told the position of cells.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        located: bool,
        *,
        width: int,
        finest: int,
        upsample: Upsample,
    ) -> None:
        super().__init__()
        if finest not in strides:
            raise ConfigError(
                f"FCN-{finest}s reads the map of stride {finest}, but the backbone's have {list(strides)}: add it to "
                "backbone.strides, or take another of method/decoder=fcn32s, fcn16s and fcn8s"
            )
        self.first, self.axes = list(strides).index(finest), "xy" if located else ""
        _check_doubling(strides[self.first :])
        *depths, deepest = channels[self.first :]
        scores = [nn.Conv2d(depth, width, 1) for depth in (*depths, deepest + len(self.axes))]
        for score in scores:
            nn.init.xavier_uniform_(score.weight)
            assert score.bias is not None
            nn.init.zeros_(score.bias)
        self.scores = nn.ModuleList(scores)
        self.steps = nn.ModuleList(upsample(width) for _ in depths)
        self.factor = finest // strides[0]

    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> Float[Tensor, "B F h w"]:
        *maps, coarsest = features[self.first :]
        maps.append(with_coordinates(coarsest, self.axes))
        *finer, total = (score(level) for score, level in zip(self.scores, maps, strict=True))
        for step, score in zip(self.steps, reversed(finer), strict=True):
            assert isinstance(step, Doubling)
            total = score + step.meet(total, score)
        return _enlarged(total, self.factor, features[0])


def fcn(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    finest: int = 8,
    width: int = 128,
    upsample: Upsample = BilinearTransposedConv,
) -> Branches:
    """FCN-32s, FCN-16s or FCN-8s, by the finest stride that is read; the steps that double begin as bilinear."""
    network = partial(FCN, channels, strides, width=width, finest=finest, upsample=upsample)
    return Branches(width, map(network, coordinates))


# U-Net and SegNet ----------------------------------------------------------------------------------------------------


class Rise(nn.Module):
    """From one map to the next finer: as many channels as it has, the doubling, and two 3×3 convolutions."""

    def __init__(self, channels: int, finer: int, width: int, upsample: Upsample, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.reduce = ConvNormReLU(channels, finer, kernel=1, std=None)
        self.step = upsample(finer)
        seen = 2 * finer if skip else finer
        self.refine = nn.Sequential(ConvNormReLU(seen, width, std=None), ConvNormReLU(width, width, std=None))

    def forward(self, coarse: Float[Tensor, "B D _h _w"], finer: Float[Tensor, "B E h w"]) -> Float[Tensor, "B F h w"]:
        doubled = self.step.meet(self.reduce(coarse), finer)
        return self.refine(torch.cat([finer, doubled], dim=1) if self.skip else doubled)


class Ascent(nn.Module):
    """From the coarsest map over every one between to the finest.

    With skips it is U-Net's expansive path (Ronneberger et al., MICCAI 2015, arXiv 1505.04597, section 2): a map is
    doubled, the backbone's is laid beside it, and two convolutions follow. Without them a step learns of the backbone's
    map no more than it asks: max-unpooling asks where the maxima lie, as in SegNet (Badrinarayanan et al., PAMI 2017,
    arXiv 1511.00561, section 3). SegNet's encoder has pooled there; a residual network strides, so the maxima are those
    that a pooling of its map would find. What goes up is brought to the channels of that map, and not the map to a
    width of its own, since a convolution that is only asked for maxima's places would never get a gradient.

    Args:
        located: whether it is told the position of cells.
        skips: whether the backbone's maps go in.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        located: bool,
        *,
        width: int,
        upsample: Upsample,
        skips: bool,
    ) -> None:
        super().__init__()
        _check_doubling(strides)
        self.axes = "xy" if located else ""
        *finer, deepest = channels
        incoming = (deepest + len(self.axes), *(width for _ in finer[1:]))
        self.rises = nn.ModuleList(
            Rise(depth, below, width, upsample, skips) for depth, below in zip(incoming, reversed(finer), strict=True)
        )

    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> Float[Tensor, "B F h w"]:
        *finer, coarsest = features
        maps = with_coordinates(coarsest, self.axes)
        for rise, feature in zip(self.rises, reversed(finer), strict=True):
            maps = rise(maps, feature)
        return maps


def unet(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    width: int = 128,
    upsample: Upsample = TransposedConv,
) -> Branches:
    """U-Net's expansive path, of one width at every resolution, with group normalisation."""
    network = partial(Ascent, channels, strides, width=width, upsample=upsample, skips=True)
    return Branches(width, map(network, coordinates))


def segnet(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    width: int = 128,
    upsample: Upsample = MaxUnpool,
) -> Branches:
    """SegNet's decoder, of one width at every resolution, with group normalisation."""
    network = partial(Ascent, channels, strides, width=width, upsample=upsample, skips=False)
    return Branches(width, map(network, coordinates))


# DeepLab -------------------------------------------------------------------------------------------------------------


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a cell, its surroundings at several rates and the whole image, side by side."""

    def __init__(self, channels: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.cell = ConvNormReLU(channels, width, kernel=1, std=None)
        self.around = nn.ModuleList(ConvNormReLU(channels, width, std=None, dilation=rate) for rate in rates)
        # Without a norm: of a mean over the image its groups may hold a single value.
        self.image = nn.Conv2d(channels, width, 1)
        self.merge = ConvNormReLU((len(rates) + 2) * width, width, kernel=1, std=None)
        kaiming(self.image)

    def forward(self, maps: Float[Tensor, "B D _h _w"]) -> Float[Tensor, "B F _h _w"]:
        cell = self.cell(maps)
        image = F.relu_(self.image(maps.mean(dim=(2, 3), keepdim=True))).expand_as(cell)
        return self.merge(torch.cat([cell, *(around(maps) for around in self.around), image], dim=1))


class DeepLabV3(nn.Module):
    """ASPP on the coarsest map, then bilinear to the finest stride (Chen et al. 2017, arXiv 1706.05587, section 3.3).

    The paper dilates the last stage of its backbone to stride 16, as strides of 4, 8, 16 with timm's `output_stride` of
    16 do. The backbone that every other method has ends at stride 32, where the rates are halved, as the paper doubles
    them at stride 8: they reach as far in pixels.

    Args:
        located: whether it is told the position of cells.
        rates: cells between those that a convolution sees, at stride 16.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], located: bool, *, width: int, rates: Sequence[int]
    ) -> None:
        super().__init__()
        self.axes = "xy" if located else ""
        there = [max(1, 16 * rate // strides[-1]) for rate in rates]
        self.aspp = ASPP(channels[-1] + len(self.axes), width, there)
        self.factor = strides[-1] // strides[0]

    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> Float[Tensor, "B F h w"]:
        seen = self.aspp(with_coordinates(features[-1], self.axes))
        return _enlarged(seen, self.factor, features[0])


class DeepLabV3Plus(nn.Module):
    """DeepLabv3, then two convolutions beside the finest map (Chen et al., ECCV 2018, arXiv 1802.02611, section 4.1).

    Args:
        low_level: channels that a 1×1 convolution leaves of the finest map, so that they don't outweigh the rest.
        rates: and all else as for DeepLabv3.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        located: bool,
        *,
        width: int,
        rates: Sequence[int],
        low_level: int,
    ) -> None:
        super().__init__()
        self.v3 = DeepLabV3(channels, strides, located, width=width, rates=rates)
        self.low_level = ConvNormReLU(channels[0], low_level, kernel=1, std=None)
        self.refine = nn.Sequential(
            ConvNormReLU(width + low_level, width, std=None), ConvNormReLU(width, width, std=None)
        )

    def forward(self, features: Sequence[Float[Tensor, "B _d _h _w"]]) -> Float[Tensor, "B F h w"]:
        return self.refine(torch.cat([self.v3(features), self.low_level(features[0])], dim=1))


def deeplabv3(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    width: int = 256,
    rates: Sequence[int] = (6, 12, 18),
) -> Branches:
    """DeepLabv3's head, with group normalisation."""
    network = partial(DeepLabV3, channels, strides, width=width, rates=rates)
    return Branches(width, map(network, coordinates))


def deeplabv3_plus(
    channels: Sequence[int],
    strides: Sequence[int],
    coordinates: Sequence[bool],
    *,
    width: int = 256,
    rates: Sequence[int] = (6, 12, 18),
    low_level: int = 48,
) -> Branches:
    """DeepLabv3+'s head and decoder, with group normalisation."""
    network = partial(DeepLabV3Plus, channels, strides, width=width, rates=rates, low_level=low_level)
    return Branches(width, map(network, coordinates))


# Sizes ---------------------------------------------------------------------------------------------------------------


def _enlarged(
    maps: Float[Tensor, "B D _h _w"], factor: int, finest: Float[Tensor, "B E h w"]
) -> Float[Tensor, "B D h w"]:
    larger = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    return larger[..., : finest.shape[-2], : finest.shape[-1]]


def _check_doubling(strides: Sequence[int]) -> None:
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise ConfigError(
            f"this decoder doubles from map to map, but the backbone's have strides {list(strides)}: give "
            "backbone.strides all between, or choose method/decoder=deeplabv3_plus"
        )
