"""Which image comes when, on which device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from maskbench.errors import DataError


class EpochSampler(DistributedSampler):
    """(epoch, index) of each training image, shuffled by (seed, epoch).

    The key carries the epoch into workers that live on from epoch to epoch, so that a resumed run draws the same
    augmentations. However many devices share an epoch, its n-th global batch holds the same images. Nothing is dropped;
    where the images don't divide by the devices, up to one image a device is repeated to keep them in step.

    It is a `DistributedSampler` so that Lightning sets its epoch and does not shard it a second time.

    Attributes:
        skip: how many of this device's images the next epoch leaves out, since they were trained on before.
    """

    def __init__(self, dataset: Dataset, *, seed: int, rank: int = 0, world: int = 1) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self._length = len(dataset)  # type: ignore[arg-type]
        self.skip = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self._length)
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        left, self.skip = share[self.skip :], 0
        return iter([(self.epoch, index) for index in left.tolist()])


class PhotoLoader(DataLoader):
    """A loader whose workers' errors about data arrive as they were raised, and not with the worker's traceback."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names its own class
        try:
            yield from super().__iter__()
        except DataError as error:
            raise DataError(str(error).rpartition(f"{DataError.__name__}: ")[2].strip()) from error


class EpochLoader(PhotoLoader):
    """A loader over an `EpochSampler` that can go on within an epoch.

    It draws nothing before its first batch is asked for, so that there is time to say where it goes on.
    """

    def go_on(self, batches: int) -> None:
        """Leave out so many batches of the next epoch."""
        assert isinstance(self.sampler, EpochSampler)
        self.sampler.skip = batches * (self.batch_size or 1)

    # Lightning takes a loader with these two for one that can go on. It restores their state too late for that, and the
    # number of batches stands in its checkpoint anyway.

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is none."""


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
