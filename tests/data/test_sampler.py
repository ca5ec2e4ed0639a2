from __future__ import annotations

from collections import Counter

import pytest
from torch.utils.data import Dataset

from maskbench.data.sampler import EpochSampler, EverySampler


class Ten(Dataset):
    """A data set of ten."""

    def __len__(self) -> int:
        return 10


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    sampler = EpochSampler(Ten(), seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(index for _, index in first) == sorted(index for _, index in second) == list(range(10))
    assert {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]
    assert first == list(EpochSampler(Ten(), seed=0))
    assert first != list(EpochSampler(Ten(), seed=1))


@pytest.mark.parametrize("world", [2, 5])
def test_global_batches_are_the_same_on_any_number_of_devices(world: int) -> None:
    alone = list(EpochSampler(Ten(), seed=0))
    shares = [list(EpochSampler(Ten(), seed=0, rank=rank, world=world)) for rank in range(world)]
    for start in range(0, 10, world):
        together = {share[start // world] for share in shares}
        assert together == set(alone[start : start + world])


def test_devices_stay_in_step_and_repeat_as_few_as_they_must() -> None:
    shares = [list(EpochSampler(Ten(), seed=0, rank=rank, world=4)) for rank in range(4)]
    assert [len(share) for share in shares] == [3, 3, 3, 3]
    counts = Counter(index for share in shares for _, index in share)
    assert set(counts) == set(range(10))
    assert sum(counts.values()) == 12


def test_evaluation_sees_each_image_once_over_all_devices() -> None:
    shares = [list(EverySampler(Ten(), rank=rank, world=4)) for rank in range(4)]
    assert sorted(index for share in shares for index in share) == list(range(10))
    assert [len(EverySampler(Ten(), rank=rank, world=4)) for rank in range(4)] == [3, 3, 2, 2]


def test_a_device_without_a_share_repeats_one_image() -> None:
    assert list(EverySampler(Ten(), rank=11, world=12)) == [1]
