from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.nn.decoders import (
    ASPP,
    Decoder,
    deeplabv3,
    deeplabv3_plus,
    fcn,
    segnet,
    semantic_fpn,
    unet,
)
from maskbench.nn.fpn import FPN
from maskbench.nn.upsample import BedOfNails, Bilinear, MaxUnpool, Nearest, NearestConv, Upsample

CHANNELS, STRIDES = (6, 8, 10, 12), (4, 8, 16, 32)

DECODERS: dict[str, Decoder] = {
    "semantic_fpn": partial(semantic_fpn, fpn_width=8, width=12),
    "fcn32s": partial(fcn, finest=32, width=12),
    "fcn16s": partial(fcn, finest=16, width=12),
    "fcn8s": partial(fcn, width=12),
    "unet": partial(unet, width=12),
    "segnet": partial(segnet, width=12),
    "deeplabv3": partial(deeplabv3, width=12),
    "deeplabv3_plus": partial(deeplabv3_plus, width=12, low_level=5),
}
# The places of the maps, fine to coarse, that a decoder reads.
READ = {"fcn32s": [3], "fcn16s": [2, 3], "fcn8s": [1, 2, 3], "deeplabv3": [3], "deeplabv3_plus": [0, 3]}


def maps(height: int, width: int, batch: int = 2) -> list[Tensor]:
    """A residual network's maps of an image, whose sides need not be multiples of the strides."""
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [torch.randn(batch, depth, *size) for depth, size in zip(CHANNELS, sizes, strict=True)]


every_decoder = pytest.mark.parametrize("name", DECODERS)


class TestEveryDecoder:
    @every_decoder
    @pytest.mark.parametrize(
        ("image", "cells"),
        [
            ((128, 128), (32, 32)),
            ((800, 1344), (200, 336)),  # a photo of 800 × 1333, padded: 25 × 42 cells at the coarsest
        ],
    )
    def test_a_map_a_branch_at_the_finest_stride(
        self, name: str, image: tuple[int, int], cells: tuple[int, int]
    ) -> None:
        decoder = DECODERS[name](CHANNELS, STRIDES, (False, True, False))
        with torch.no_grad():
            found = decoder(maps(*image, batch=1))
        assert decoder.width == 12
        assert [branch.shape for branch in found] == 3 * [(1, 12, *cells)]

    @pytest.mark.parametrize("name", [name for name in DECODERS if name != "semantic_fpn"])
    def test_sides_that_are_no_multiples_of_the_strides(self, name: str) -> None:
        """Odd at three levels; batches are padded to the coarsest stride, which is all that semantic FPN takes."""
        (found,) = DECODERS[name](CHANNELS, STRIDES, (True,))(maps(100, 132))
        assert found.shape == (2, 12, 25, 33)

    @every_decoder
    def test_one_small_image_trains_every_weight(self, name: str) -> None:
        """Of 64 pixels: the coarsest map has four cells, and its mean a single one."""
        decoder = DECODERS[name](CHANNELS, STRIDES, (False, True)).train()
        torch.stack([branch.square().mean() for branch in decoder(maps(64, 64, batch=1))]).sum().backward()
        assert [
            name for name, weight in decoder.named_parameters() if weight.grad is None or not weight.grad.any()
        ] == []

    @every_decoder
    def test_what_it_reads(self, name: str) -> None:
        decoder, features = DECODERS[name](CHANNELS, STRIDES, (False,)), maps(128, 160)
        with torch.no_grad():
            (found,) = decoder(features)
            for place in range(4):
                changed = [torch.randn_like(map_) if at == place else map_ for at, map_ in enumerate(features)]
                assert torch.equal(decoder(changed)[0], found) is (place not in READ.get(name, range(4)))

    @every_decoder
    def test_coordinates_are_told_to_the_branches_that_ask(self, name: str) -> None:
        """An image that is the same everywhere looks the same in the middle, but to a branch that knows its cells."""
        decoder = DECODERS[name](CHANNELS, STRIDES, (False, True))
        with torch.no_grad():
            plain, located = decoder([torch.ones_like(level) for level in maps(1280, 1280, batch=1)])
        # Cells of one place in their blocks of 8 × 8, between which unpooling and transposed convolutions differ.
        middle = (..., slice(152, 176, 8), slice(152, 176, 8))
        assert plain[middle].std(dim=(2, 3)).max() < 1e-5
        assert located[middle].std(dim=(2, 3)).max() > 1e-4

    @every_decoder
    def test_branches_do_not_share_their_weights(self, name: str) -> None:
        features, decoder = maps(64, 64), DECODERS[name](CHANNELS, STRIDES, (False, False))
        one, other = decoder(features)
        assert not torch.allclose(one, other)
        nn.init.zeros_(next(decoder.networks[0].parameters()))
        assert torch.equal(decoder(features)[1], other)


class TestSemanticFPN:
    def test_branches_share_the_pyramid(self) -> None:
        decoder, features = semantic_fpn(CHANNELS, STRIDES, (False, True), fpn_width=8, width=12), maps(64, 96)
        assert isinstance(decoder.trunk, FPN)
        levels = decoder.trunk(features)
        for network, found in zip(decoder.networks, decoder(features), strict=True):
            assert torch.equal(network(levels), found)


class TestFCN:
    def test_coarse_scores_are_doubled_and_added(self) -> None:
        decoder = fcn((1, 1, 1, 1), STRIDES, (False,), width=1, upsample=Nearest)
        for weight in decoder.parameters():
            nn.init.constant_(weight, float(weight.ndim == 4))
        _, eight, sixteen, coarsest = features = [torch.rand(1, 1, 64 // stride, 96 // stride) for stride in STRIDES]
        total = F.interpolate(F.interpolate(coarsest, scale_factor=2) + sixteen, scale_factor=2) + eight
        expected = F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=False)
        torch.testing.assert_close(decoder(features), [expected])

    def test_steps_begin_bilinear(self) -> None:
        features = maps(512, 512, batch=1)
        torch.manual_seed(0)
        (learnt,) = fcn(CHANNELS, STRIDES, (False,), width=3)(features)
        torch.manual_seed(0)
        (fixed,) = fcn(CHANNELS, STRIDES, (False,), width=3, upsample=Bilinear)(features)
        inner = (..., slice(32, -32), slice(32, -32))
        torch.testing.assert_close(learnt[inner], fixed[inner])


class TestAscent:
    def test_segnet_hears_of_finer_maps_where_their_maxima_lie(self) -> None:
        decoder, features = segnet(CHANNELS, STRIDES, (False,), width=12), maps(64, 96)
        (found,) = decoder(features)
        louder = [*(2 * level for level in features[:-1]), features[-1]]
        assert torch.equal(decoder(louder)[0], found)
        moved = [features[0].flip(3), *features[1:]]
        assert not torch.allclose(decoder(moved)[0], found)

    def test_unet_hears_all_of_them(self) -> None:
        decoder, features = unet(CHANNELS, STRIDES, (False,), width=12), maps(64, 96)
        louder = [2 * features[0], *features[1:]]
        assert not torch.allclose(decoder(louder)[0], decoder(features)[0])

    @pytest.mark.parametrize("build", [unet, segnet, fcn])
    @pytest.mark.parametrize("upsample", [Nearest, Bilinear, BedOfNails, MaxUnpool, NearestConv])
    def test_any_way_to_double(self, build: Callable[..., nn.Module], upsample: Upsample) -> None:
        (found,) = build(CHANNELS, STRIDES, (True,), width=12, upsample=upsample)(maps(100, 132))
        assert found.shape == (2, 12, 25, 33)


class TestDeepLab:
    @pytest.fixture
    def without_norms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Through a norm's deviation every cell hears of every other."""
        monkeypatch.setattr(nn.GroupNorm, "forward", lambda norm, x: x)

    @pytest.mark.usefixtures("without_norms")
    @pytest.mark.parametrize("rates", [(1,), (2, 5)])
    def test_how_far_it_sees_beside_the_mean(self, rates: Sequence[int]) -> None:
        aspp, image = ASPP(1, 4, rates), torch.zeros(1, 1, 21, 21)
        nn.init.zeros_(aspp.image.weight)
        image[..., 10, 10] = 1
        rows = aspp(image)[0].sum(dim=(0, 2)).nonzero().flatten() - 10
        assert rows.tolist() == sorted({0, *rates, *(-rate for rate in rates)})

    @pytest.mark.usefixtures("without_norms")
    def test_the_mean_reaches_every_cell(self) -> None:
        aspp, image = ASPP(1, 4, (1,)), torch.zeros(1, 1, 21, 21)
        image[..., 10, 10] = 21 * 21
        nn.init.ones_(aspp.image.weight)
        nn.init.ones_(aspp.merge[0].weight)
        found = aspp(image)[0]
        assert found[:, 0, 0].tolist() == [4, 4, 4, 4], "four channels of a mean of one"
        assert (found[:, :9] == 4).all()

    @pytest.mark.parametrize(("coarsest", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
    def test_rates_reach_as_far_at_any_stride(self, coarsest: int, rates: list[int]) -> None:
        places = STRIDES.index(coarsest) + 1
        decoder = deeplabv3(CHANNELS[:places], STRIDES[:places], (False,), width=12)
        assert [around[0].dilation[0] for around in decoder.networks[0].aspp.around] == rates
        (found,) = decoder(maps(64, 96)[:places])
        assert found.shape == (2, 12, 16, 24)


@pytest.mark.parametrize("strides", [(4, 8, 16), (2, 4, 8, 16, 32)])
def test_a_semantic_pyramid_sums_the_maps_that_there_are(strides: Sequence[int]) -> None:
    decoder = semantic_fpn((8,) * len(strides), strides, (False,), fpn_width=8, width=12)
    assert len(decoder.networks[0].chains) == len(strides)
    (found,) = decoder([torch.rand(2, 8, 64 // stride, 96 // stride) for stride in strides])
    assert found.shape == (2, 12, 64 // strides[0], 96 // strides[0])


@pytest.mark.parametrize(
    ("build", "strides", "message"),
    [
        (semantic_fpn, (4, 8, 32), "doubles from map to map"),
        (unet, (4, 8, 32), r"strides \[4, 8, 32\]: give backbone\.strides all between"),
        (segnet, (4, 16, 32), "doubles from map to map"),
        (fcn, (4, 8, 32), "doubles from map to map"),
        (fcn, (4, 16, 32), r"FCN-8s reads the map of stride 8, but the backbone's have \[4, 16, 32\]"),
    ],
)
def test_a_backbone_without_the_maps_is_refused(build: Decoder, strides: Sequence[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(CHANNELS[:3], strides, (False,))
