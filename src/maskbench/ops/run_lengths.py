"""COCO's run lengths as numbers, held to their mask: pycocotools draws whatever they say, also beyond its end."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int64

Runs = Int64[np.ndarray, " _"]
"""Lengths of runs down the columns of a mask, of background and foreground in turn."""

DIGITS = 9
"""Characters of a run, of 5 bits each: no mask has runs of more."""


def read_runs(counts: Any, size: tuple[int, int]) -> Runs:
    """The field `counts` of an RLE: a list of numbers, or COCO's string of them.

    Args:
        counts: as a json or pycocotools has it.
        size: height and width of the mask.

    Raises:
        ValueError: they are no such thing, or don't fill the mask.
    """
    pixels = size[0] * size[1]
    if not isinstance(counts, list | str | bytes):
        raise ValueError(f"run lengths are a list or a string, found {type(counts).__name__}")
    runs = _listed(counts, pixels) if isinstance(counts, list) else _written(counts)
    if len(outside := runs[(runs < 0) | (runs > pixels)]):
        raise ValueError(f"a run covers {outside[0]} pixels, but the photo of {size[0]} x {size[1]} has {pixels}")
    # pycocotools would hand out uninitialised memory for what the runs leave open
    if (filled := int(runs.sum())) != pixels:
        raise ValueError(f"run lengths cover {filled} pixels, but the photo of {size[0]} x {size[1]} has {pixels}")
    return runs


def _listed(counts: list[Any], pixels: int) -> Runs:
    for each in counts:
        if type(each) is not int:
            raise ValueError(f"run lengths are whole numbers, found {each!r:.40}")
        if not 0 <= each <= pixels:  # before they are squeezed into 64 bits
            raise ValueError(f"a run covers {each} pixels, but the photo has {pixels}")
    return np.array(counts, dtype=np.int64)


def _written(counts: str | bytes) -> Runs:
    """COCO's string of run lengths: 5 bits a character, low ones first; from the fourth run on as the difference to the
    last run of the same kind (`rleFrString` in cocoapi's maskApi.c)."""
    if not counts:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(counts.encode("ascii") if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63:
        strange = chr(codes[(codes < 0) | (codes > 63)][0] + 48)
        raise ValueError(f"no run length is written with the character {strange!r}")
    last = (codes & 32) == 0
    if not last[-1]:
        raise ValueError("the string ends within a run length")
    ends = np.flatnonzero(last) + 1
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    if lengths.max() > DIGITS:
        raise ValueError("a run is longer than any photo")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << (5 * places), starts)
    runs -= np.where(codes[ends - 1] & 16, 1 << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
