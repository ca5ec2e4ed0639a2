from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.nn.upsample import (
    BedOfNails,
    Bilinear,
    BilinearConv,
    BilinearTransposedConv,
    Doubling,
    MaxUnpool,
    Nearest,
    NearestConv,
    TransposedConv,
    Upsample,
)

OF_A_MASK_HEAD = [Nearest, Bilinear, BedOfNails, TransposedConv, BilinearTransposedConv, NearestConv, BilinearConv]


@pytest.mark.parametrize("upsample", OF_A_MASK_HEAD)
@pytest.mark.parametrize("regions", [0, 3])
def test_the_side_doubles_and_the_channels_stay(upsample: Upsample, regions: int) -> None:
    step, maps = upsample(6), torch.randn(regions, 6, 5, 7)
    assert step(maps).shape == (regions, 6, 10, 14)
    assert torch.equal(step.meet(maps, torch.randn(regions, 3, 9, 13)), step(maps)[..., :9, :13])


def test_what_a_single_cell_becomes() -> None:
    """With weights of one: a block of its own, the same and its neighbours, the same weighted by nearness."""
    cell = torch.zeros(1, 1, 3, 3)
    cell[0, 0, 1, 1] = 1
    found = []
    for upsample in (TransposedConv(1), NearestConv(1), BilinearConv(1)):
        for name, weight in upsample.named_parameters():
            torch.nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
        found.append(upsample(cell)[0, 0])
    transposed, nearest, bilinear = found
    assert transposed[2:4, 2:4].tolist() == [[1, 1], [1, 1]]
    assert transposed.sum() == 4
    assert nearest[1].tolist() == [0, 1, 2, 2, 1, 0]
    assert bilinear[2:4, 2:4].min() > bilinear[0, 0]
    assert bilinear[0, 0] > 0


def test_without_weights_by_hand() -> None:
    cells = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert Nearest(1)(cells)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert Bilinear(1)(cells)[0, 0, 0].tolist() == [1, 1.25, 1.75, 2]
    assert BedOfNails(1)(cells)[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("upsample", OF_A_MASK_HEAD)
@pytest.mark.parametrize("regions", [0, 3])
def test_a_prediction_is_that_of_the_doubled_map(upsample: Upsample, regions: int) -> None:
    """With its gradients."""
    step, last, maps = upsample(6), torch.nn.Conv2d(6, 4, 1), torch.randn(regions, 6, 5, 7, requires_grad=True)
    leaves = [maps, *step.parameters(), *last.parameters()]
    said, doubled = step.predict(maps, last), last(step(maps).relu())
    torch.testing.assert_close(said, doubled)
    weights = torch.randn_like(said)
    gradients = (torch.autograd.grad((outcome * weights).sum(), leaves) for outcome in (said, doubled))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class TestMaxUnpool:
    def test_by_hand(self) -> None:
        finer = torch.tensor([[[[0.0, 1, 5, 4], [3, 2, 6, 7]]]])
        assert MaxUnpool(1).meet(torch.tensor([[[[-1.0, 8]]]]), finer)[0, 0].tolist() == [[0, 0, 0, 0], [-1, 0, 0, 8]]

    @pytest.mark.parametrize("size", [(8, 6), (7, 9)])
    def test_pooling_undoes_it(self, size: tuple[int, int]) -> None:
        """Of what is not negative, which lies below the zeros around it; also at the end of an odd side."""
        finer = torch.randn(2, 3, *size)
        pooled = F.max_pool2d(finer, 2, ceil_mode=True)
        maps = torch.rand_like(pooled)
        unpooled = MaxUnpool(3).meet(maps, finer)
        assert unpooled.shape == finer.shape
        assert torch.equal(F.max_pool2d(unpooled, 2, ceil_mode=True), maps)
        back = MaxUnpool(3).meet(pooled, finer)
        assert torch.equal(back, torch.where(back != 0, finer, 0)), "maxima return to where they were"

    def test_it_needs_a_finer_map(self) -> None:
        with pytest.raises(ConfigError, match="asks a finer map where its maxima lie, and here is none"):
            MaxUnpool(3)(torch.rand(1, 3, 4, 4))


def test_a_transposed_convolution_begins_as_bilinear_interpolation() -> None:
    maps = torch.randn(2, 3, 6, 9)
    expected = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    found = BilinearTransposedConv(3)(maps)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def checkerboard(step: Doubling) -> Tensor:
    """Share of the energy that lies at the highest frequencies, where the input is the same everywhere."""
    with torch.no_grad():
        inner = step(torch.rand(1, 8, 1, 1).expand(1, 8, 12, 12))[0, :, 4:-4, 4:-4]
    spectrum = torch.fft.fft2(inner).abs() ** 2
    nyquist = inner.shape[-1] // 2
    return (spectrum[:, nyquist].sum() + spectrum[:, :, nyquist].sum()) / spectrum.sum()


def test_who_leaves_a_checkerboard() -> None:
    assert checkerboard(TransposedConv(8)) > 0.1
    assert checkerboard(BedOfNails(8)) > 0.5
    for upsample in (Nearest, Bilinear, NearestConv, BilinearConv, BilinearTransposedConv):
        assert checkerboard(upsample(8)) < 1e-10
