from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from maskbench.nn import blocks
from maskbench.nn.blocks import ConvNormReLU, predictor, tower, with_coordinates, zero_of


def test_coordinates_run_from_minus_one_to_one_x_before_y() -> None:
    features = torch.rand(2, 3, 4, 5)
    found = with_coordinates(features)
    assert torch.equal(found[:, :3], features)
    for x, y in found[:, 3:].unbind():
        assert [x[0, 0], x[0, 2], x[0, 4], x[3, 4]] == [-1, 0, 1, 1]
        assert [y[0, 0], y[3, 0], y[3, 4]] == [-1, 1, 1]
        assert torch.equal(x, x[:1].expand(4, 5))
        assert torch.equal(y, y[:, :1].expand(4, 5))
    assert torch.equal(with_coordinates(features, "x"), found[:, :4])
    assert torch.equal(with_coordinates(features, "y"), found[:, [0, 1, 2, 4]])
    assert torch.equal(with_coordinates(features, ""), features)


@pytest.mark.parametrize(("width", "groups"), [(64, 32), (24, 8), (7, 1)])
def test_a_width_that_does_not_divide_has_fewer_groups(width: int, groups: int) -> None:
    block = ConvNormReLU(3, width)
    (norm,) = (layer for layer in block if isinstance(layer, nn.GroupNorm))
    assert norm.num_groups == groups
    found = block(torch.randn(2, 3, 6, 8))
    assert found.shape == (2, width, 6, 8)
    assert found.min() >= 0


def test_a_tower_is_as_deep_and_wide_as_asked() -> None:
    shapes = [tuple(block[0].weight.shape) for block in tower(5, 8, 3)]
    assert shapes == [(8, 5, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3)]
    assert len(tower(5, 8, 0)) == 0


def test_a_predictor_starts_at_its_prior() -> None:
    features = torch.zeros(1, 16, 4, 4)
    assert predictor(16, 3, prior=0.01)(features).sigmoid().flatten().tolist() == pytest.approx([0.01] * 48)
    assert not predictor(16, 3, kernel=1)(features).any()


def test_zero_of_gives_every_weight_a_gradient_of_zeros() -> None:
    a, b = torch.rand(2, 3, requires_grad=True), torch.rand(0, 4, requires_grad=True)
    loss = zero_of(a, b)
    loss.backward()
    assert loss.item() == 0
    assert a.grad is not None
    assert b.grad is not None
    assert not a.grad.any()


class TestInCache:
    def test_a_few_rows_at_a_time_give_what_all_give(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blocks, "CACHED_VALUES", 100)
        made: list[int] = []

        def work(one: Tensor, other: Tensor) -> Tensor:
            made.append(len(one))
            return one + 2 * other

        one, other = torch.randn(2, 7, 3)
        with torch.no_grad():
            assert torch.equal(blocks.in_cache(work, one, other, values=40), one + 2 * other)
            assert made == [2, 2, 2, 1]
            assert blocks.in_cache(work, one[:0], other[:0], values=40).shape == (0, 3)

    def test_what_is_learnt_from_is_worked_out_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(blocks, "CACHED_VALUES", 1)
        made: list[int] = []
        blocks.in_cache(lambda rows: made.append(len(rows)) or rows, torch.randn(7, 3), values=40)
        assert made == [7]
