"""What a photo looks like in 33 numbers' worth of bytes, and which of many look alike.

N photos
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt64

SIDE = 16
"""Pixels of the thumbnail's sides."""

FAR = 7
"""Bits in which the hashes of two photos that look alike may differ: with one less than `BANDS`, one band is equal."""

BANDS, BITS = 8, 8
"""Parts of a hash by which candidates are found, and bits of each."""

ONES = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(
    axis=1, dtype=np.uint8
)
"""Bits that are set in each number of 16."""

AFTER = 1000
"""Photos of a band that each is compared with: in a film of which all frames look alike, those that come next."""

ROWS = 16
"""Photos that are compared with others at once."""

CLOSE = 0.985
"""Correlation of the thumbnails of photos that look alike."""

CONTRAST = 2.0
"""Standard deviation of grey levels below which a thumbnail shows nothing to compare."""


class Likeness(NamedTuple):
    """Whether brightness rises to the right, in a grid of 8 × 8 (dHash), and a grey thumbnail."""

    hash: int
    thumbnail: UInt8[np.ndarray, "16 16"]


class Pairs(NamedTuple):
    """Places of two photos, the later one second, and the correlation of their thumbnails."""

    first: Int64[np.ndarray, " pairs"]
    second: Int64[np.ndarray, " pairs"]
    correlation: Float64[np.ndarray, " pairs"]


def likeness(grey: UInt8[np.ndarray, "_h _w"]) -> Likeness:
    """Of a photo of any size. Neither its size, its compression nor its brightness changes much of it."""
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    steps = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(steps[:, 1:] > steps[:, :-1])
    return Likeness(int.from_bytes(bits.tobytes(), "big"), small)


def alike(hashes: UInt64[np.ndarray, " N"], thumbnails: UInt8[np.ndarray, "N 16 16"]) -> Iterator[Pairs]:
    """Pairs of photos that look alike, each once.

    Hashes that differ in `FAR` bits at the most share one of `FAR + 1` bands (by pigeonhole), so that only photos of a
    common band are compared; their thumbnails decide.
    """
    grey = thumbnails.reshape(-1, SIDE * SIDE)
    means = grey.mean(axis=1, dtype=np.float64)
    squares = np.einsum("ij,ij->i", grey, grey, dtype=np.float64, casting="unsafe") / SIDE**2
    spreads = np.sqrt(np.maximum(squares - means**2, 0))
    rows = np.flatnonzero(spreads >= CONTRAST)
    for first, second in _near(hashes[rows]):
        a, b = rows[first], rows[second]
        products = np.einsum("ij,ij->i", grey[a].astype(np.float64), grey[b].astype(np.float64)) / SIDE**2
        correlations = (products - means[a] * means[b]) / (spreads[a] * spreads[b])
        close = correlations >= CLOSE
        yield Pairs(a[close], b[close], correlations[close])


def _near(
    hashes: UInt64[np.ndarray, " N"],
) -> Iterator[tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]]:
    """Rows, and later ones whose hashes differ from theirs in a few bits; each pair once."""
    for band in range(BANDS):
        keys = (hashes >> np.uint64(BITS * band)) & np.uint64(2**BITS - 1)
        order = np.argsort(keys, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            for start in range(0, len(group) - 1, ROWS):
                rows, others = group[start : start + ROWS], group[start + 1 : start + ROWS + AFTER]
                differing = hashes[rows][:, None] ^ hashes[others]
                row, other = np.nonzero(np.triu(_ones(differing) <= FAR))  # those that come after it in the group
                first = _first_in(differing[row, other], band)
                yield rows[row[first]], others[other[first]]


def _first_in(differing: UInt64[np.ndarray, " N"], band: int) -> Bool[np.ndarray, " N"]:
    """Whether no earlier band is equal, in which the pair was found before."""
    first = np.ones(len(differing), bool)
    for earlier in range(band):
        first &= (differing >> np.uint64(BITS * earlier)) & np.uint64(2**BITS - 1) != 0
    return first


def _ones(numbers: UInt64[np.ndarray, "N M"]) -> Int64[np.ndarray, "N M"]:
    """Bits that are set in each."""
    return ONES[numbers.view(np.uint16).reshape(*numbers.shape, 4)].sum(axis=-1, dtype=np.int64)
