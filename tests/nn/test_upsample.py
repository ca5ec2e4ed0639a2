from __future__ import annotations

import pytest
import torch

from maskbench.nn.upsample import BilinearConv, NearestConv, TransposedConv, Upsample


@pytest.mark.parametrize("upsample", [TransposedConv, NearestConv, BilinearConv])
@pytest.mark.parametrize("regions", [0, 3])
def test_the_side_doubles_and_the_channels_stay(upsample: Upsample, regions: int) -> None:
    assert upsample(6)(torch.randn(regions, 6, 5, 7)).shape == (regions, 6, 10, 14)


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


@pytest.mark.parametrize("upsample", [TransposedConv, NearestConv, BilinearConv])
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
