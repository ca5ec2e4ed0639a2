"""What a photo looks like in 33 numbers' worth of bytes, and which of many look alike.

N photos
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64

SIDE = 16
"""Pixels of the thumbnail's sides."""

FAR = 3
"""Bits in which the hashes of two photos that look alike may differ: with one less than `BANDS`, one band is equal."""

BANDS, BITS = 4, 16
"""Parts of a hash by which candidates are found, and bits of each."""

CLOSE = 0.985
"""Correlation of the thumbnails of photos that look alike."""

CONTRAST = 2.0
"""Standard deviation of grey levels below which a thumbnail shows nothing to compare."""


class Likeness(NamedTuple):
    """Whether brightness rises to the right, in a grid of 8 × 8 (dHash), and a grey thumbnail."""

    hash: int
    thumbnail: UInt8[np.ndarray, "16 16"]


def likeness(grey: UInt8[np.ndarray, "_h _w"]) -> Likeness:
    """Of a photo of any size. Neither its size, its compression nor its brightness changes much of it."""
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    steps = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(steps[:, 1:] > steps[:, :-1])
    return Likeness(int.from_bytes(bits.tobytes(), "big"), small)


def alike(
    hashes: UInt64[np.ndarray, " N"], thumbnails: UInt8[np.ndarray, "N 16 16"]
) -> Iterator[tuple[int, int, float]]:
    """Pairs of photos that look alike, the earlier one first, and the correlation of their thumbnails.

    Hashes that differ in `FAR` bits at the most share one of `FAR + 1` bands (by pigeonhole), so that only photos of a
    common band are compared; their thumbnails decide.
    """
    pixels = thumbnails.reshape(-1, SIDE * SIDE).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    spread = pixels.std(axis=1)
    rows = np.flatnonzero(spread >= CONTRAST)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    for row, others in _near(hashes[rows]):
        correlations = pixels[rows[others]] @ pixels[rows[row]]
        for other, correlation in zip(rows[others], correlations, strict=True):
            if correlation >= CLOSE:
                yield min(int(rows[row]), int(other)), max(int(rows[row]), int(other)), float(correlation)


def _near(hashes: UInt64[np.ndarray, " N"]) -> Iterator[tuple[int, Int64[np.ndarray, " M"]]]:
    """A row and others whose hashes differ from its in a few bits; each pair once."""
    for band in range(BANDS):
        shift = np.uint64(BITS * band)
        keys = (hashes >> shift) & np.uint64(2**BITS - 1)
        order = np.argsort(keys, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for place in range(len(group) - 1):
                row, others = group[place], group[place + 1 :]
                differing = hashes[others] ^ hashes[row]
                near = others[(_ones(differing) <= FAR) & _first_in(differing, band)]
                if len(near):
                    yield int(row), near


def _first_in(differing: UInt64[np.ndarray, " N"], band: int) -> Bool[np.ndarray, " N"]:
    """Whether no earlier band is equal, in which the pair was found before."""
    first = np.ones(len(differing), bool)
    for earlier in range(band):
        first &= (differing >> np.uint64(BITS * earlier)) & np.uint64(2**BITS - 1) != 0
    return first


def _ones(numbers: UInt64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Bits that are set in each."""
    return np.unpackbits(numbers.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64)
