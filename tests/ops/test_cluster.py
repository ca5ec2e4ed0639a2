from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskbench.ops import cluster
from maskbench.ops.cluster import keep_apart, mean_shift


def blobs(sizes: list[int], dimensions: int = 8) -> tuple[Tensor, Tensor]:
    """Points around corners that are 10 apart, in random order, and the corner of each."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[torch.randperm(sum(sizes))]
    return 10 * torch.eye(dimensions)[owner] + 0.2 * torch.randn(len(owner), dimensions), owner


def together(member: Tensor) -> Tensor:
    """Which points share a cluster, whatever it is called."""
    return member[:, None] == member


class TestMeanShift:
    @pytest.mark.parametrize("seeds", [2048, 64])
    def test_blobs_apart_are_found_the_largest_first(self, seeds: int) -> None:
        points, owner = blobs([40, 80, 20, 60])
        member, modes = mean_shift(points, bandwidth=2.0, seeds=seeds)
        assert torch.equal(together(member), together(owner))
        assert torch.bincount(member).tolist() == [80, 60, 40, 20]
        means = torch.stack([points[member == mode].mean(dim=0) for mode in range(4)])
        torch.testing.assert_close(modes, means, atol=1e-4, rtol=0)

    def test_a_blob_without_a_seed_is_found(self) -> None:
        """Three points between thousands: only every tenth is a seed at first."""
        points, _ = blobs([1000])
        small = torch.full((3, 8), 7.0) + 0.1 * torch.randn(3, 8)
        points = torch.cat([points[:501], small, points[501:]])
        member, modes = mean_shift(points, bandwidth=2.0, seeds=100)
        assert len(modes) == 2
        assert member.nonzero()[:, 0].tolist() == [501, 502, 503]

    def test_a_point_joins_the_nearest_mode_however_far(self) -> None:
        points = torch.tensor([[0.0], [0.1], [0.2], [2.4], [4.7], [4.8], [4.9]])
        member, modes = mean_shift(points, bandwidth=2.5, iterations=4)
        assert len(modes) == 2
        assert torch.equal(member, torch.cdist(points, modes).argmin(dim=1))

    def test_one_point_and_none(self) -> None:
        member, modes = mean_shift(torch.tensor([[3.0, 4.0]]), bandwidth=1.5)
        assert (member.tolist(), modes.tolist()) == ([0], [[3, 4]])
        member, modes = mean_shift(torch.zeros(0, 5), bandwidth=1.5)
        assert (member.shape, modes.shape) == ((0,), (0, 5))

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = torch.randn(300, 3)
        member, modes = mean_shift(points, bandwidth=0.8)
        monkeypatch.setattr(cluster, "PAIRS", 1000)
        member_in_chunks, modes_in_chunks = mean_shift(points, bandwidth=0.8)
        torch.testing.assert_close(modes_in_chunks, modes, atol=1e-4, rtol=0)
        assert torch.equal(member_in_chunks, member)


class TestKeepApart:
    @pytest.mark.parametrize("distance", [0.05, 0.2, 1.0])
    def test_it_is_the_sequential_loop(self, distance: float) -> None:
        points = torch.rand(200, 2)
        kept: list[int] = []
        for row, point in enumerate(points):
            if all((point - points[other]).norm() >= distance for other in kept):
                kept.append(row)
        assert keep_apart(points, distance).nonzero()[:, 0].tolist() == kept

    def test_a_chain_needs_as_many_rounds_as_it_has_links(self) -> None:
        points = torch.arange(40.0)[:, None]
        assert keep_apart(points, 1.5).tolist() == [row % 2 == 0 for row in range(40)]

    def test_one_point_and_none(self) -> None:
        assert keep_apart(torch.zeros(1, 2), 1.0).tolist() == [True]
        assert keep_apart(torch.zeros(0, 2), 1.0).tolist() == []
        assert keep_apart(torch.zeros(5, 2), 1.0).tolist() == [True, False, False, False, False]
