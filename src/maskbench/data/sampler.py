"""Which image comes when, on which device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class EpochSampler(DistributedSampler):
    """(epoch, index) of each training image, shuffled by (seed, epoch).

    The key carries the epoch into workers that live on from epoch to epoch, so that a resumed run draws the same
    augmentations. However many devices share an epoch, its n-th global batch holds the same images. Nothing is dropped;
    where the images don't divide by the devices, up to one image a device is repeated to keep them in step.

    It is a `DistributedSampler` so that Lightning sets its epoch and does not shard it a second time.
    """

    def __init__(self, dataset: Dataset, *, seed: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self._length = len(dataset)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self._length)
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return iter([(self.epoch, index) for index in share.tolist()])


class EverySampler(DistributedSampler):
    """Each index once over all devices, in order; a device that would have none repeats one, so that it takes part."""

    def __init__(self, dataset: Dataset, *, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, shuffle=False)
        length = len(dataset)  # type: ignore[arg-type]
        self._share = list(range(rank, length, world)) or [rank % length]

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)

    def __len__(self) -> int:
        return len(self._share)
