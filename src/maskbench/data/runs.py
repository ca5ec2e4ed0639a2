"""From COCO's segmentations to run lengths, and from run lengths to label maps.

A *label map* holds row + 1 of the instance at each pixel, 0 where there is none. Instances that overlap lie in different
maps of a list, so nothing is lost, and one map serves hundreds of instances that don't: it is flipped, resized and cropped
in place of hundreds of masks, and memory grows with pixels, not with instances × pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float32, Int64, UInt16

Runs = Int64[np.ndarray, " runs"]
"""Lengths of runs down the columns of a mask, of background and foreground in turn."""
LabelMap = UInt16[np.ndarray, "H W"]
MOST = 65535
"""Instances that the numbers of a label map can tell apart."""


def run_lengths(segmentation: list | dict[str, Any], size: tuple[int, int]) -> Runs:
    """Polygons, compressed or uncompressed RLE as runs, rasterised as pycocotools does.

    Args:
        segmentation: COCO's field of that name.
        size: height and width of the photo.

    Raises:
        ValueError: the coordinates are no numbers, or the runs don't fill the photo.
    """
    counts: Any
    if isinstance(segmentation, list):
        polygons = rle_codec.frPyObjects(segmentation, *size)
        counts = rle_codec.merge(polygons)["counts"]
    else:
        counts = segmentation["counts"]
    runs = np.array(counts, dtype=np.int64) if isinstance(counts, list) else _uncompressed(counts)
    filled, pixels = int(runs.sum()), size[0] * size[1]
    # pycocotools would hand out uninitialised memory for what the runs leave open.
    if filled != pixels or (runs < 0).any():
        raise ValueError(f"run lengths cover {filled} pixels, but the photo of {size[0]} x {size[1]} has {pixels}")
    return runs


def _uncompressed(counts: str | bytes) -> Runs:
    """COCO's string of run lengths: 5 bits a character, low ones first; from the fourth run on as the difference to the
    last run of the same kind (`rleFrString` in cocoapi's maskApi.c)."""
    codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if len(codes) == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("the string of run lengths is broken")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    place = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((codes & 31) << np.minimum(place, 55), first)
    values -= np.where(codes[last] & 16, 1 << np.minimum(place[last] + 5, 60), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def label_maps(instances: Sequence[Runs], size: tuple[int, int]) -> list[LabelMap]:
    """Paint each instance into the first map where it overlaps no other; no instances make no maps.

    Raises:
        ValueError: there are more than `MOST` instances.
    """
    if len(instances) > MOST:
        raise ValueError(f"an image may hold {MOST} instances, found {len(instances)}")
    columns: list[np.ndarray] = []
    for row, runs in enumerate(instances):
        pixels = _foreground(runs)
        for column in columns:
            if not column[pixels].any():
                break
        else:
            column = np.zeros(size[0] * size[1], np.uint16)
            columns.append(column)
        column[pixels] = row + 1
    return [np.ascontiguousarray(column.reshape(size[1], size[0]).T) for column in columns]


def _foreground(runs: Runs) -> Int64[np.ndarray, " pixels"]:
    """Positions of the foreground, counted down the columns."""
    ends = np.cumsum(runs)
    starts, lengths = ends[: len(runs) // 2 * 2 : 2], runs[1::2]
    skipped = starts - (np.cumsum(lengths) - lengths)
    return np.repeat(skipped, lengths) + np.arange(int(lengths.sum()))


def separate(
    maps: Sequence[LabelMap], count: int, size: tuple[int, int]
) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, "N 4"], Bool[np.ndarray, "N H W"]]:
    """Rows that are still visible, with their boxes (xyxy, right and bottom exclusive) and masks in a frame of `size`.

    Args:
        maps: label maps, none larger than `size`.
        count: instances that were painted.
        size: height and width of the frame; the maps lie in its upper left corner.
    """
    rows, boxes = locate(maps, count)
    masks = np.zeros((len(rows), *size), bool)
    slots = np.zeros(count + 1, np.int64)
    slots[rows + 1] = np.arange(len(rows))
    for labels in maps:
        y, x = np.nonzero(labels)
        masks[slots[labels[y, x]], y, x] = True
    return rows, boxes, masks


def locate(maps: Sequence[LabelMap], count: int) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, "N 4"]]:
    """Rows that are still visible, and their boxes (xyxy, right and bottom exclusive)."""
    low = np.full((2, count + 1), np.iinfo(np.int64).max)
    high = np.zeros((2, count + 1), np.int64)
    for labels in maps:
        y, x = np.nonzero(labels)
        label = labels[y, x]
        for axis, position in enumerate((x, y)):
            np.minimum.at(low[axis], label, position)
            np.maximum.at(high[axis], label, position + 1)
    rows = np.flatnonzero(high[0, 1:])
    boxes = np.concatenate((low[:, rows + 1], high[:, rows + 1])).T
    return rows, np.ascontiguousarray(boxes, dtype=np.float32)
