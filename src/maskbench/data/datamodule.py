"""A COCO-format data set as loaders of batches, in three splits: train, tune (chosen from) and test (reported)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from lightning import LightningDataModule
from torch import distributed
from torch.utils.data import DataLoader, Sampler

from maskbench.data.coco import CocoFile, stored
from maskbench.data.dataset import CocoDataset, Sample, collate
from maskbench.data.groups import Grouping
from maskbench.data.layouts import Places, find
from maskbench.data.parts import Part, Split, fingerprint_of, read_parts
from maskbench.data.profile import Profile, profile_at
from maskbench.data.sampler import EpochLoader, EpochSampler, EverySampler, PhotoLoader
from maskbench.data.semantic import open_maps
from maskbench.data.transforms import Transforms
from maskbench.errors import ConfigError
from maskbench.structures import Batch, Frame

Unreadable = Literal["stop", "skip"]

DENSE_BYTES = 2**26
"""Masks of an evaluation image that would take more come encoded: 400 of a large photo would fill the memory."""


class CocoDataModule(LightningDataModule):
    """Loaders over any COCO-format folder, for Lightning or a loop of one's own.

    Args:
        root: folder of the data set, or a function that makes it and returns it (`functools.partial(shapes.draw, …)`).
        transforms: training and evaluation pipeline (default: the photo as it is).
        batch: training images a step, over all devices.
        eval_batch: images a step in evaluation, on each device.
        workers: processes that load (0: the main one).
        seed: of order and augmentation.
        train_annotations, test_annotations: json files, relative to `root` (None: they are found, see `layouts`).
        tune_annotations: json file of the tune split; None takes `tune_share` of the training images, by hash, unless
            three splits are found.
        train_images, test_images, tune_images: folders that `file_name` is relative to (None: they are found).
        train_semantic: maps of stuff and things of the training images, relative to `root`: a folder of label maps or a
            panoptic json (None: there are none). Methods with a semantic branch learn from them.
        tune_share: share of the training images that are for tuning; 0 leaves that split empty.
        test_share: share of the training file's images that are for testing, by hash, where no file is for that.
        group_by: what images belong together, of which none is in two splits: a field of the image record, or a regular
            expression of `file_name` (see `groups.Grouping`).
        limit: training images used (None: all); the other splits do not depend on it.
        eval_limit: images of tune and of test used, each (None: all).
        divisor: height and width of a batch are multiples of it.
        unreadable: what becomes of a training photo that can't be read: `stop`, or `skip`, and nothing without objects
            stands in its place, which batches tell. In evaluation every photo has to be read.

    Raises:
        ConfigError: a setting is out of its range, or `batch` does not divide by the devices.
        DataError: a file is missing, broken, or at odds with another.
    """

    def __init__(
        self,
        root: str | Path | Callable[[], str | Path],
        *,
        transforms: Transforms | None = None,
        batch: int = 8,
        eval_batch: int = 1,
        workers: int = 0,
        seed: int = 0,
        train_annotations: str | None = None,
        test_annotations: str | None = None,
        tune_annotations: str | None = None,
        train_images: str | None = None,
        test_images: str | None = None,
        tune_images: str | None = None,
        train_semantic: str | None = None,
        tune_share: float = 0.1,
        test_share: float | None = None,
        group_by: str | None = None,
        limit: int | None = None,
        eval_limit: int | None = None,
        divisor: int = 32,
        unreadable: str = "stop",
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch", batch, 1),
            ("eval_batch", eval_batch, 1),
            ("workers", workers, 0),
            ("limit", limit, 1),
            ("eval_limit", eval_limit, 1),
            ("divisor", divisor, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"data.{name} is at least {least}, found {value}")
        if not 0 <= tune_share < 1:
            raise ConfigError(f"data.tune_share is a share of the training images below 1, found {tune_share}")
        if unreadable not in get_args(Unreadable):
            raise ConfigError(f"data.unreadable={unreadable}: expected one of {', '.join(get_args(Unreadable))}")
        self.unreadable = unreadable
        self.transforms = transforms or Transforms()
        self.batch, self.eval_batch, self.workers, self.seed, self.divisor = batch, eval_batch, workers, seed, divisor
        self.tune_share, self.limit, self.eval_limit = tune_share, limit, eval_limit
        self.grouping = None if group_by is None else Grouping(group_by)
        self.parts = 1
        """In how many a device's share of a training batch comes, one after another."""
        self.collate: Callable[..., Batch] = partial(collate, divisor=divisor)
        self._root = root
        self._train_semantic = train_semantic
        self._given: dict[str, Any] = {
            "train_annotations": train_annotations,
            "train_images": train_images,
            "test_annotations": test_annotations,
            "test_images": test_images,
            "tune_annotations": tune_annotations,
            "tune_images": tune_images,
            "test_share": test_share,
        }

    # What is there ----------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Make the data set where it has to be made; one process a machine does it."""
        _ = self.root

    def setup(self, stage: str | None = None) -> None:
        """Read and check the annotation files; every process does it, once."""
        _ = self._parts

    @cached_property
    def root(self) -> Path:
        """Folder of the data set; made on first need if `root` was given as a function."""
        made = self._root() if callable(self._root) else self._root
        return Path(made).expanduser()

    @cached_property
    def _places(self) -> Places:
        """Where the splits lie, found where no setting says it."""
        return find(self.root, self._given)

    @cached_property
    def _parts(self) -> Mapping[Split, Part]:
        return read_parts(
            self.root,
            self._places,
            tune_share=self.tune_share,
            grouping=self.grouping,
            limit=self.limit,
            eval_limit=self.eval_limit,
        )

    @property
    def test_share(self) -> float | None:
        """Share of the training file's photos that are test; None where test is a file of its own."""
        return self._places.test_share

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; labels are indices into it."""
        return tuple(self._parts["train"].file.categories.values())

    @property
    def category_ids(self) -> tuple[int, ...]:
        """COCO's category id of each label."""
        return tuple(self._parts["train"].file.categories)

    def file(self, split: Split) -> CocoFile:
        """The annotation file of a split, which may list images of others, too."""
        return self._parts[split].file

    def annotations(self, split: Split) -> Path:
        """The untouched json that a split is evaluated against; `image_ids` says which of its images belong to it."""
        return self._parts[split].file.path

    def image_ids(self, split: Split) -> tuple[int, ...]:
        """The images of a split, ascending."""
        return self._parts[split].image_ids

    def objects(self, split: Split) -> int:
        """How many objects the images of a split have, crowd regions aside."""
        part = self._parts[split]
        return sum(len(part.file.counts(image_id)[0]) for image_id in part.image_ids)

    def image_path(self, split: Split, image_id: int) -> Path:
        part = self._parts[split]
        return stored(part.images, part.file.records[image_id].file_name)

    @cached_property
    def fingerprint(self) -> str:
        """Of the contents of all annotation files and images, wherever they lie (see `fingerprint.fingerprint`)."""
        return fingerprint_of(self.root, self._places, self._parts, self._train_semantic)

    @cached_property
    def profile(self) -> Profile:
        """Statistics of the training file: of train and tune together, never of test."""
        return profile_at(self.root, self._places.train.annotations, self.test_share, self.grouping)

    # Loaders ----------------------------------------------------------------------------------------------------------

    def dataset(self, split: Split) -> CocoDataset:
        """The samples of a split: train augmented, the others as evaluation sees them."""
        part = self._parts[split]
        labels = {category_id: label for label, category_id in enumerate(self.category_ids)}
        skip = self.unreadable == "skip"
        if split != "train":
            return CocoDataset(part.file, part.images, part.image_ids, labels, self.transforms, skip=skip)
        maps = None if self._train_semantic is None else open_maps(self.root / self._train_semantic)
        place = (part.file, part.images, part.image_ids)
        return CocoDataset(*place, labels, self.transforms, seed=self.seed, semantic=maps, skip=skip)

    def train_dataloader(self) -> DataLoader[Sample]:
        rank, world = self._rank_and_world()
        if self.batch % world:
            raise ConfigError(f"data.batch is shared by the devices, but {self.batch} does not divide by {world}")
        dataset = self.dataset("train")
        sampler = EpochSampler(dataset, seed=self.seed, rank=rank, world=world)
        return self._loader(dataset, sampler, self.batch // world // self.parts)

    def val_dataloader(self) -> DataLoader[Sample] | list[DataLoader[Sample]]:
        """Of the tune split; no loader where that is empty."""
        return self._every("tune") if self.image_ids("tune") else []

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._every("test")

    def _every(self, split: Split) -> DataLoader[Sample]:
        rank, world = self._rank_and_world()
        dataset = self.dataset(split)
        return self._loader(dataset, EverySampler(dataset, rank=rank, world=world), self.eval_batch, DENSE_BYTES)

    def _loader(
        self, dataset: CocoDataset, sampler: Sampler, batch: int, dense_bytes: int | None = None
    ) -> DataLoader[Sample]:
        kind = EpochLoader if isinstance(sampler, EpochSampler) else PhotoLoader
        return kind(
            dataset,
            batch_size=batch,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=partial(self.collate, dense_bytes=dense_bytes),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            worker_init_fn=_one_thread,
        )

    def _rank_and_world(self) -> tuple[int, int]:
        """Rank and number of the processes that train together."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1


def photo_batch(
    photos: Mapping[int, UInt8[np.ndarray, "_h _w 3"]], transforms: Transforms, *, divisor: int = 32
) -> Batch:
    """RGB photos without truth, by their image ids, as a batch of the evaluation pipeline."""
    samples = []
    for image_id, photo in photos.items():
        image, _ = transforms.eval(photo, [])
        frame = Frame(image_id, (photo.shape[0], photo.shape[1]), (image.shape[0], image.shape[1]))
        samples.append(Sample(image, [], np.zeros(0, np.int64), frame))
    return collate(samples, divisor=divisor)


def _one_thread(worker: int) -> None:
    """Workers are the parallelism; OpenCV would start as many threads as there are cores in each."""
    cv2.setNumThreads(0)
