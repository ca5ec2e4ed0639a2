"""The nouns of the package: what travels between data, methods and evaluation.

B images   N instances   H W pixels of the frame in question
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypedDict

import numpy as np
import pycocotools.mask as rle_codec
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from maskbench.errors import ConfigError

Size = tuple[int, int]
"""Height and width in pixels, in this order everywhere."""


class RLE(TypedDict):
    """One mask as COCO's compressed run lengths, column by column."""

    size: list[int]
    counts: bytes


class Masks:
    """N binary masks of one frame, dense on a device or run-length encoded in host memory, behind one interface.

    Four hundred masks of a twenty-megapixel photo take 8 GB dense and some 100 kB encoded, so whoever makes masks at
    photo size chooses the form (`ops.masks.to_photo`); whoever reads them does not need to know.
    """

    __slots__ = ("_data", "size")

    def __init__(self, data: Bool[Tensor, "N H W"] | Sequence[RLE], size: Size | None = None) -> None:
        """Take a dense stack or encoded masks; `size` is needed for an empty encoded sequence alone."""
        if isinstance(data, Tensor):
            if data.ndim != 3 or data.dtype != torch.bool:
                raise ValueError(f"masks are Bool[N H W], found {data.dtype} of shape {tuple(data.shape)}")
            found = (int(data.shape[1]), int(data.shape[2]))
        else:
            data = tuple(data)
            sizes = {(int(mask["size"][0]), int(mask["size"][1])) for mask in data} or ({size} if size else set())
            if len(sizes) != 1:
                raise ValueError(
                    f"encoded masks of one frame have one size, found {sorted(sizes)} for {len(data)} masks"
                )
            found = sizes.pop()
        if size is not None and tuple(size) != found:
            raise ValueError(f"masks are {found} pixels, but the frame is {tuple(size)}")
        self._data = data
        self.size: Size = found

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        form = "dense" if self.is_dense else "rle"
        return f"Masks({len(self)} {form}, {self.size[0]}x{self.size[1]})"

    @property
    def is_dense(self) -> bool:
        return isinstance(self._data, Tensor)

    def __getitem__(self, keep: Tensor | slice) -> Masks:
        """Rows by a boolean or integer index, or a slice."""
        if isinstance(self._data, Tensor):
            return Masks(self._data[keep])
        rows = torch.arange(len(self))[keep.cpu() if isinstance(keep, Tensor) else keep]
        return Masks([self._data[row] for row in rows.tolist()], self.size)

    def dense(self) -> Bool[Tensor, "N H W"]:
        """All masks as one tensor: on the device where they were made, or in host memory when they were encoded."""
        if isinstance(self._data, Tensor):
            return self._data
        if not self._data:
            return torch.zeros((0, *self.size), dtype=torch.bool)
        stack = rle_codec.decode(list(self._data))
        return torch.from_numpy(np.ascontiguousarray(stack.transpose(2, 0, 1))).bool()

    def rle(self) -> list[RLE]:
        """All masks run-length encoded, as pycocotools has them (`counts` are bytes)."""
        if not isinstance(self._data, Tensor):
            return list(self._data)
        if not len(self._data):
            return []
        # pycocotools encodes [H W N] in Fortran order: the same bytes as [N W H] in C order.
        columns = self._data.to(torch.uint8).transpose(1, 2).contiguous().cpu().numpy()
        return rle_codec.encode(columns.transpose(2, 1, 0))

    def areas(self) -> Int64[Tensor, " N"]:
        """Pixels of each mask."""
        if isinstance(self._data, Tensor):
            return self._data.sum(dim=(1, 2))
        # one by one: of more than 255 at once pycocotools can't tell the areas
        return torch.tensor([int(rle_codec.area(rle)) for rle in self._data], dtype=torch.int64)

    def boxes(self) -> Float[Tensor, "N 4"]:
        """The tight box of each mask, xyxy, right and bottom edge exclusive; all zero for an empty mask."""
        if isinstance(self._data, Tensor):
            pixels = self._data.view(torch.uint8)  # whose maximum a CPU finds ten times faster than any() of booleans
            (left, right), (top, bottom) = _span(pixels.amax(dim=1) > 0), _span(pixels.amax(dim=2) > 0)
            return torch.stack([left, top, right, bottom], dim=1).float()
        boxes = torch.as_tensor(np.asarray(rle_codec.toBbox(list(self._data)), dtype=np.float32)).view(-1, 4)
        return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Masks:
        """Dense masks move; encoded ones stay in host memory."""
        if isinstance(self._data, Tensor):
            return Masks(self._data.to(device, non_blocking=non_blocking))
        return self

    def pin_memory(self) -> Masks:
        return Masks(self._data.pin_memory()) if isinstance(self._data, Tensor) else self


def _span(occupied: Bool[Tensor, "N L"]) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """First occupied index of each row and the one after the last; (0, 0) where none is."""
    length = occupied.shape[1]
    if length == 0:  # of nothing there is no largest
        nothing = torch.zeros(len(occupied), dtype=torch.long, device=occupied.device)
        return nothing, nothing
    ordinal = torch.arange(1, length + 1, device=occupied.device)
    last = (occupied * ordinal).amax(dim=1)
    first = length - (occupied * ordinal.flip(0)).amax(dim=1)
    return torch.minimum(first, last), last


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of one image, as truth (every score 1) or as predicted (scores descending).

    `boxes` are xyxy in pixels of the same frame as the masks, right and bottom edge exclusive (a mask of one pixel
    has a box of 1 × 1). `labels` run from 0 to C−1; background is never a label.
    """

    masks: Masks
    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    scores: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"every field has one row an instance, found {lengths}")

    @classmethod
    def empty(cls, size: Size, device: torch.device | str = "cpu") -> Instances:
        """No instance in a frame of `size` pixels: the normal case that every stage must bear."""
        return cls(
            masks=Masks(torch.zeros((0, *size), dtype=torch.bool, device=device)),
            boxes=torch.zeros((0, 4), device=device),
            labels=torch.zeros(0, dtype=torch.long, device=device),
            scores=torch.zeros(0, device=device),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, keep: Tensor | slice) -> Instances:
        """Rows by a boolean or integer index, or a slice."""
        return Instances(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Instances:
        moved = {field.name: getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)}
        return Instances(**moved)

    def pin_memory(self) -> Instances:
        return Instances(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


@dataclass(frozen=True)
class Frame:
    """Where an image of a batch comes from: the way back from network input to photo.

    `photo` is the size of the image as stored, `resized` what the photo was scaled to before the padding (right and
    bottom) that brings it to the size of its batch.
    """

    image_id: int
    photo: Size
    resized: Size

    @property
    def scale(self) -> tuple[float, float]:
        """Network pixels a photo pixel, (vertical, horizontal)."""
        return self.resized[0] / self.photo[0], self.resized[1] / self.photo[1]


UNKNOWN_CLASS = 255
"""In a semantic map: nobody knows what is there."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What a loader yields and a method takes.

    `images` are RGB bytes padded right and bottom to a common multiple of the coarsest stride; `targets` live in the
    network frame (masks as large as `images`), crowds removed; `semantic` is an optional map of stuff and things: a
    class for each pixel or `UNKNOWN_CLASS`, which the padding is. `unreadable` names the images in whose place there is
    nothing, without objects, since their files could not be read.
    """

    images: UInt8[Tensor, "B 3 H W"]
    targets: tuple[Instances, ...]
    frames: tuple[Frame, ...]
    semantic: UInt8[Tensor, "B H W"] | None = None
    unreadable: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        lengths = {"images": len(self.images), "targets": len(self.targets), "frames": len(self.frames)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"a batch has one target and one frame an image, found {lengths}")

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[Batch]:
        """The images one by one, as batches of one."""
        for row, (target, frame) in enumerate(zip(self.targets, self.frames, strict=True)):
            semantic = None if self.semantic is None else self.semantic[row : row + 1]
            unreadable = tuple(image_id for image_id in self.unreadable if image_id == frame.image_id)
            yield Batch(self.images[row : row + 1], (target,), (frame,), semantic, unreadable)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=tuple(target.to(device, non_blocking=non_blocking) for target in self.targets),
            semantic=None if self.semantic is None else self.semantic.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=tuple(target.pin_memory() for target in self.targets),
            semantic=None if self.semantic is None else self.semantic.pin_memory(),
        )


@dataclass(frozen=True)
class OperatingPoint:
    """What every method is asked for alike when it reads its output.

    Args:
        score_threshold: candidates below it are dropped.
        candidates: the best that enter suppression in an image (None: all).
        max_instances: the best that are returned for an image.
        final_threshold: instances below it are dropped at the end, where a method would let scores fall under
            `score_threshold` (suppression lowers them).
    """

    score_threshold: float = 0.0
    candidates: int | None = 500
    max_instances: int = 100
    final_threshold: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1:
            raise ConfigError(f"score_threshold lies in [0, 1), found {self.score_threshold}")
        if self.max_instances < 1 or (self.candidates is not None and self.candidates < 1):
            raise ConfigError(f"at least one candidate and one instance an image, found {self}")
