"""From COCO's segmentations to run lengths, and from run lengths to label maps.

A *label map* holds row + 1 of the instance at each pixel, 0 where there is none. Instances that overlap lie in
different maps of a list, so nothing is lost, and one map serves hundreds of instances that don't: it is flipped,
resized and cropped in place of hundreds of masks, and memory grows with pixels, not with instances × pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Bool, Float32, Int64, UInt16

from maskbench.ops.polygons import rasterise
from maskbench.ops.run_lengths import Runs, read_runs

LabelMap = UInt16[np.ndarray, "h w"]
MOST = 65535
"""Instances that the numbers of a label map can tell apart."""

UNDRAWABLE = (TypeError, ValueError, OverflowError)
"""What numpy and pycocotools raise for segmentations that hold something else than a photo's pixels."""


def run_lengths(segmentation: list | dict[str, Any], size: tuple[int, int]) -> Runs:
    """Polygons, compressed or uncompressed RLE as runs, rasterised as pycocotools does.

    Args:
        segmentation: COCO's field of that name.
        size: height and width of the photo.

    Raises:
        ValueError: the coordinates are no numbers or far outside, or the runs don't fill the photo.
    """
    drawn: dict[str, Any] = rasterise(segmentation, size) if isinstance(segmentation, list) else segmentation
    return read_runs(drawn["counts"], size)


class Extent(NamedTuple):
    """Where a mask lies in its photo."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom; the last two exclusive."""
    centre: tuple[float, float]
    """Mean column and row index of its pixels (no half pixel added, as in `ops.masks.centres_of_mass`)."""


def extent(runs: Runs, height: int) -> Extent | None:
    """Where a mask lies in a photo of that height; None for one without a pixel."""
    columns, rows = np.divmod(_foreground(runs), height)
    if not len(rows):
        return None
    box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return Extent(box, (float(columns.mean()), float(rows.mean())))


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
    painted = [_painted(labels) for labels in maps]
    rows, boxes = _boxes(painted, count)
    masks = np.zeros((len(rows), *size), bool)
    slots = np.zeros(count + 1, np.int64)
    slots[rows + 1] = np.arange(len(rows))
    for y, x, label in painted:
        masks[slots[label], y, x] = True
    return rows, boxes, masks


def locate(maps: Sequence[LabelMap], count: int) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, "N 4"]]:
    """Rows that are still visible, and their boxes (xyxy, right and bottom exclusive)."""
    return _boxes([_painted(labels) for labels in maps], count)


Painted = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row, column and label of each foreground pixel."""


def _painted(labels: LabelMap) -> Painted:
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    y = pixels // labels.shape[1]
    return y, pixels - y * labels.shape[1], flat[pixels]


def _boxes(painted: Sequence[Painted], count: int) -> tuple[Int64[np.ndarray, " N"], Float32[np.ndarray, "N 4"]]:
    low = np.full((2, count + 1), np.iinfo(np.int64).max)
    high = np.zeros((2, count + 1), np.int64)
    for y, x, label in painted:
        for axis, position in enumerate((x, y)):
            np.minimum.at(low[axis], label, position)
            np.maximum.at(high[axis], label, position)
    rows = np.flatnonzero(low[0, 1:] <= high[0, 1:])
    boxes = np.concatenate((low[:, rows + 1], high[:, rows + 1] + 1)).T
    return rows, np.ascontiguousarray(boxes, dtype=np.float32)


def encode(
    maps: Sequence[LabelMap],
    rows: Int64[np.ndarray, " N"],
    boxes: Float32[np.ndarray, "N 4"],
    size: tuple[int, int],
) -> list[dict[str, Any]]:
    """The masks that `separate` would give for the rows and boxes of `locate`, encoded one at a time."""
    frame = np.zeros((*size, 1), np.uint8, order="F")
    encoded = []
    for row, (left, top, right, bottom) in zip(rows, boxes.astype(np.int64), strict=True):
        window = (slice(top, bottom), slice(left, right))
        for labels in maps:
            frame[(*window, 0)] |= labels[window] == row + 1
        encoded += rle_codec.encode(frame)
        frame[window] = 0
    return encoded
