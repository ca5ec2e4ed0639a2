from __future__ import annotations

import torch

from maskbench.ops.roi_pool import levels_of, pool

STRIDES = (4, 8, 16, 32)


def square(side: float, left: float = 0, top: float = 0) -> list[float]:
    return [float(left), float(top), float(left + side), float(top + side)]


def test_a_level_more_each_doubling() -> None:
    sides = [0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 5000]
    assert levels_of(torch.tensor([square(side) for side in sides]), 4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_the_level_goes_by_the_area() -> None:
    wide = torch.tensor([[0.0, 0, 448, 112]])  # as large as a square of 224
    assert levels_of(wide, 4).tolist() == [2]
    assert levels_of(wide, 2).tolist() == [1]
    assert levels_of(wide, 4, finest=28).tolist() == [3]


def test_a_constant_feature_gives_that_constant_from_the_right_level_in_the_given_order() -> None:
    features = [torch.full((2, 3, 512 // stride, 512 // stride), 10.0 * level) for level, stride in enumerate(STRIDES)]
    for level in features:
        level[1] += 1
    first = torch.tensor([square(300, 5, 8), square(50, 20, 30), square(460, 20, 20)])
    second = torch.tensor([square(120, 100, 100), square(60, 40, 40)])
    pooled = pool(features, STRIDES, [first, second], 7)
    assert pooled.shape == (5, 3, 7, 7)
    expected = torch.tensor([20.0, 0, 30, 11, 1])
    torch.testing.assert_close(pooled, expected[:, None, None, None].expand_as(pooled))


def test_a_ramp_gives_the_means_of_the_bins() -> None:
    """On a map that holds the position of its cells' centres, a bin holds the position of its own centre."""
    x = (torch.arange(32) + 0.5) * 4
    feature = x.expand(1, 1, 32, 32)
    (region,) = pool([feature], [4], [torch.tensor([[16.0, 16, 80, 80]])], 4, finest=56)
    torch.testing.assert_close(region[0, 0], torch.tensor([24.0, 40, 56, 72]))


def test_nothing() -> None:
    features = [torch.zeros(1, 3, 32 // stride, 32 // stride) for stride in STRIDES]
    assert pool(features, STRIDES, [torch.zeros(0, 4)], 14).shape == (0, 3, 14, 14)


def test_it_keeps_the_precision_of_the_features_and_lets_the_gradient_through() -> None:
    feature = torch.ones(1, 2, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    pooled = pool([feature], [4], [torch.tensor([square(32)])], 7)
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert feature.grad is not None
    assert feature.grad.float().sum().item() > 0
