"""From an image id to a sample, and from samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from maskbench.data.coco import CocoFile, stored
from maskbench.data.photos import read_photo
from maskbench.data.runs import LabelMap, encode, label_maps, locate, separate
from maskbench.data.semantic import Map, SemanticMaps
from maskbench.data.transforms import Transforms
from maskbench.errors import DataError
from maskbench.structures import RLE, UNKNOWN_CLASS, Batch, Frame, Instances, Masks, Size


@dataclass(frozen=True, eq=False)
class Sample:
    """One network input before padding: its objects as label maps (`data.runs`) and their labels by row."""

    image: UInt8[np.ndarray, "h w 3"]
    maps: list[LabelMap]
    labels: Int64[np.ndarray, " rows"]
    frame: Frame
    semantic: Map | None = None
    """Class of each pixel, as `data.semantic` has it."""
    unreadable: bool = False
    """Whether the photo could not be read, and nothing stands in its place."""


class CocoDataset(Dataset[Sample]):
    """Samples of one split; crowd regions are no objects.

    Args:
        file: the annotations.
        images: folder of the images.
        image_ids: the images of this split; an index counts through them.
        labels: label of each category id.
        transforms: both pipelines.
        seed: first number of the augmentation's seed; None takes the evaluation pipeline.
        semantic: maps of stuff and things, if there are any.
        skip: whether a photo of training that can't be read is one of zeros without objects.
    """

    def __init__(
        self,
        file: CocoFile,
        images: Path,
        image_ids: Sequence[int],
        labels: dict[int, int],
        transforms: Transforms,
        *,
        seed: int | None = None,
        semantic: SemanticMaps | None = None,
        skip: bool = False,
    ) -> None:
        self.semantic, self.skip = semantic, skip
        self.file, self.images, self.image_ids = file, images, tuple(image_ids)
        self.labels, self.transforms, self.seed = labels, transforms, seed

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample at an index, or at an (epoch, index), which is what training asks for: augmentation depends on
        both and on the seed, never on the worker or on what was drawn before.

        Raises:
            DataError: the image can't be read or has not the size that the annotations say.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        record = self.file.records[self.image_ids[index]]
        photo = self._photo(stored(self.images, record.file_name), record.size)
        if unreadable := photo is None:  # what is drawn for it is drawn all the same, so that nothing else changes
            photo = np.zeros((*record.size, 3), np.uint8)
        every = [] if unreadable else self.file.annotations(record.image_id)
        objects = [each for each in every if not each.crowd]
        maps = label_maps([each.runs for each in objects], record.size)
        if self.semantic is not None:  # a map as they are, and moved as they are
            maps.append(np.zeros(record.size, np.uint16) if unreadable else self.semantic(record))
        if self.seed is None:
            photo, maps = self.transforms.eval(photo, maps)
        else:
            photo, maps = self.transforms.train(photo, maps, (self.seed, epoch, index))
        semantic = None if self.semantic is None else maps.pop()
        labels = np.array([self.labels[each.category_id] for each in objects], dtype=np.int64)
        frame = Frame(record.image_id, record.size, (photo.shape[0], photo.shape[1]))
        return Sample(photo, maps, labels, frame, semantic, unreadable)

    def _photo(self, path: Path, size: Size) -> UInt8[np.ndarray, "H W 3"] | None:
        """The photo; None where it can't be read and is to be skipped."""
        try:
            photo = read_photo(path)
        except DataError as error:
            if not self.skip:
                raise
            if self.seed is None:
                raise DataError(
                    f"{error}. No photo is skipped in evaluation: AP would be that of the others"
                ) from error
            return None
        if photo.shape[:2] != size:
            raise DataError(
                f"{path}: has {photo.shape[0]} x {photo.shape[1]} stored pixels (height x width), but {self.file.path} "
                f"says {size[0]} x {size[1]}; masks of another size don't fit it: export the annotations again"
            )
        return photo


def collate(samples: Sequence[Sample], *, divisor: int = 32, dense_bytes: int | None = None) -> Batch:
    """Pad samples right and bottom to a common size, and split their label maps into masks.

    Args:
        samples: network inputs of any sizes.
        divisor: height and width of the batch are multiples of it.
        dense_bytes: an image whose masks would take more comes with encoded ones; None makes all dense, as training
            needs them.
    """
    sides = [[sample.image.shape[axis] for sample in samples] for axis in (0, 1)]
    height, width = (-(-max(side) // divisor) * divisor for side in sides)
    images = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for padded, sample in zip(images, samples, strict=True):
        bottom, right = sample.image.shape[:2]
        padded[:, :bottom, :right] = torch.from_numpy(sample.image).permute(2, 0, 1)
    targets = tuple(_target(sample, (height, width), dense_bytes) for sample in samples)
    frames = tuple(sample.frame for sample in samples)
    unreadable = tuple(sample.frame.image_id for sample in samples if sample.unreadable)
    return Batch(images, targets, frames, _semantic(samples, (height, width)), unreadable)


def _semantic(samples: Sequence[Sample], size: Size) -> UInt8[Tensor, "B H W"] | None:
    """Classes, `UNKNOWN_CLASS` where the samples are padded; None where they have no maps."""
    batch = torch.full((len(samples), *size), UNKNOWN_CLASS, dtype=torch.uint8)
    for padded, sample in zip(batch, samples, strict=True):
        if sample.semantic is None:
            return None
        height, width = sample.semantic.shape
        # 0 is unknown, which is 255 after the subtraction
        padded[:height, :width] = torch.from_numpy((sample.semantic - 1).astype(np.uint8))
    return batch


def _target(sample: Sample, size: Size, dense_bytes: int | None) -> Instances:
    """The objects that are still visible, with boxes from their masks."""
    count = len(sample.labels)
    if dense_bytes is not None and count * size[0] * size[1] > dense_bytes:
        rows, boxes = locate(sample.maps, count)
        encoded = encode(sample.maps, rows, boxes, size)
        masks = Masks([RLE(size=mask["size"], counts=mask["counts"]) for mask in encoded], size)
    else:
        rows, boxes, stack = separate(sample.maps, count, size)
        masks = Masks(torch.from_numpy(stack))
    labels = torch.from_numpy(sample.labels[rows])
    return Instances(masks, torch.from_numpy(boxes), labels, torch.ones(len(rows)))
