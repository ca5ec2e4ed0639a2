from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from maskbench.errors import ConfigError
from maskbench.ops.roi_pool import RoIAlign, RoIPool, RoIWarp, align, levels_of, pool

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
    pooled = pool(features, STRIDES, [first, second], 7, how=RoIAlign())
    assert pooled.shape == (5, 3, 7, 7)
    expected = torch.tensor([20.0, 0, 30, 11, 1])
    torch.testing.assert_close(pooled, expected[:, None, None, None].expand_as(pooled))


def test_a_ramp_gives_the_means_of_the_bins() -> None:
    """On a map that holds the position of its cells' centres, a bin holds the position of its own centre."""
    x = (torch.arange(32) + 0.5) * 4
    feature = x.expand(1, 1, 32, 32)
    (region,) = pool([feature], [4], [torch.tensor([[16.0, 16, 80, 80]])], 4, how=RoIAlign(), finest=56)
    torch.testing.assert_close(region[0, 0], torch.tensor([24.0, 40, 56, 72]))


def test_nothing() -> None:
    features = [torch.zeros(1, 3, 32 // stride, 32 // stride) for stride in STRIDES]
    assert pool(features, STRIDES, [torch.zeros(0, 4)], 14, how=RoIAlign()).shape == (0, 3, 14, 14)


def test_it_keeps_the_precision_of_the_features_and_lets_the_gradient_through() -> None:
    feature = torch.ones(1, 2, 16, 16, dtype=torch.bfloat16, requires_grad=True)
    pooled = pool([feature], [4], [torch.tensor([square(32)])], 7, how=RoIAlign())
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert feature.grad is not None
    assert feature.grad.float().sum().item() > 0


class TestHow:
    """On a map that holds x of its cells' centres: what rounding does to a box from 3.4 to 11.4 cells."""

    feature = (torch.arange(16) + 0.5).expand(1, 1, 16, 16).contiguous()
    roi = torch.tensor([[0.0, 3.4, 3.4, 11.4, 11.4]])

    def pooled(self, how: RoIAlign | RoIWarp | RoIPool) -> list[float]:
        return how(self.feature, self.roi, 2, 1.0)[0, 0, 0].tolist()

    def test_align_rounds_nothing(self) -> None:
        assert self.pooled(RoIAlign()) == pytest.approx([5.4, 9.4])
        assert self.pooled(RoIAlign(sampling=2)) == pytest.approx([5.4, 9.4])

    def test_the_largest_sample_of_a_bin(self) -> None:
        assert self.pooled(RoIAlign(sampling=2, reduce="max")) == pytest.approx([6.4, 10.4])
        assert RoIAlign(2, "max")(self.feature, self.roi[:0], 2, 1.0).shape == (0, 1, 2, 2)

    def test_without_alignment_it_is_half_a_cell_off(self) -> None:
        assert self.pooled(RoIAlign(aligned=False)) == pytest.approx([5.9, 9.9])

    def test_warp_rounds_the_box_alone(self) -> None:
        """Cells 3 to 11, the last one with it: nine of them in two bins."""
        assert self.pooled(RoIWarp(sampling=9)) == pytest.approx([5.25, 9.75], rel=1e-5)

    def test_pool_rounds_the_bins_too_and_takes_the_largest(self) -> None:
        assert self.pooled(RoIPool()) == pytest.approx([7.5, 11.5])

    def test_what_can_not_be_reduced(self) -> None:
        with pytest.raises(ConfigError, match="sampling=0"):
            RoIWarp(reduce="max")
        with pytest.raises(ConfigError, match="average or max"):
            RoIAlign(reduce="median")


class TestAlign:
    """In bags of cells it is torchvision's kernel, number for number."""

    @staticmethod
    def rois() -> torch.Tensor:
        """Of two images: inside, over every edge, outside, without extent, and as large as the map."""
        corner = 80 * torch.rand(40, 2) - 10
        boxes = torch.cat([corner, corner + 60 * torch.rand(40, 2)], dim=1)
        special = torch.tensor([[5.0, 5, 5, 5], [200, 200, 260, 220], [-90, -90, -60, -70], [0, 0, 64, 48]])
        return torch.cat([torch.arange(44)[:, None] % 2, torch.cat([boxes, special])], dim=1)

    @pytest.mark.parametrize("aligned", [True, False])
    @pytest.mark.parametrize("sampling", [0, 1, 2])
    @pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
    def test_forward_and_back(self, sampling: int, aligned: bool, form: torch.memory_format) -> None:
        feature = torch.randn(2, 3, 12, 16).contiguous(memory_format=form)
        mine, theirs = (feature.clone().requires_grad_() for _ in range(2))
        settings = {"spatial_scale": 0.25, "sampling_ratio": sampling, "aligned": aligned}
        rois = self.rois()
        found = align(mine, rois, 7, 0.25, sampling=sampling, aligned=aligned)
        wanted = roi_align(theirs, rois, 7, **settings)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        weight = torch.randn_like(wanted)
        (found * weight).sum().backward()
        (wanted * weight).sum().backward()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3)

    def test_nothing(self) -> None:
        assert align(torch.zeros(1, 3, 8, 8), torch.zeros(0, 5), 7, 1.0).shape == (0, 3, 7, 7)
