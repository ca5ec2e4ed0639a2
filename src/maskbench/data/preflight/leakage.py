"""Photos that are there twice: in one split, or, which is worse, in two."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Finding, Kind, Sight
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.likeness import SIDE, Likeness, alike


@dataclass(frozen=True, slots=True)
class _Copy:
    """A photo that was looked at: of which split, what its record is called, and where it lies."""

    split: str
    label: str
    path: str


class Album:
    """The photos of all splits, in a few hundred bytes each.

    Args:
        layout: of the data set.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._photos: list[_Copy] = []
        self._digests: list[bytes] = []
        self._hashes: list[int] = []
        self._thumbnails = bytearray()
        self._seen: list[int] = []
        """Of the photos that show something, their places among all."""

    def add(self, split: str, label: str, path: Path, digest: bytes, likeness: Likeness | None) -> None:
        if likeness is not None:
            self._seen.append(len(self._photos))
            self._hashes.append(likeness.hash)
            self._thumbnails += likeness.thumbnail.tobytes()
        self._photos.append(_Copy(split, label, str(path)))
        self._digests.append(digest)

    def findings(self) -> Iterator[Finding]:
        """A finding for each photo that an earlier one equals or looks like; one of another split counts more."""
        yield from self._equal()
        yield from self._similar()

    def _equal(self) -> Iterator[Finding]:
        earlier: dict[bytes, dict[str, int]] = {}
        for place, (photo, digest) in enumerate(zip(self._photos, self._digests, strict=True)):
            if not digest:
                continue
            firsts = earlier.setdefault(digest, {})  # one of each split
            if others := [first for split, first in firsts.items() if split != photo.split]:
                named = [first for first in others if self._photos[first].path == photo.path]
                other = (named or others)[0]
                kind, words = (kinds.LEAK_FILE, "is") if named else (kinds.LEAK_COPY, "has the bytes of")
                yield self._pair(kind, place, other, words)
            elif photo.split in firsts and self._photos[firsts[photo.split]].path != photo.path:
                yield self._pair(kinds.PHOTO_COPY, place, firsts[photo.split], "has the bytes of")
            firsts.setdefault(photo.split, place)

    def _similar(self) -> Iterator[Finding]:
        """Of each photo the earlier one that it looks like most, one of another split before one of its own."""
        thumbnails = np.frombuffer(bytes(self._thumbnails), np.uint8).reshape(-1, SIDE, SIDE)
        splits = _numbered([self._photos[place].split for place in self._seen])
        digests = _numbered([self._digests[place] for place in self._seen])
        best, partner = np.zeros(len(self._seen)), np.zeros(len(self._seen), np.int64)
        for pairs in alike(np.array(self._hashes, np.uint64), thumbnails):
            others = digests[pairs.first] != digests[pairs.second]
            first, second, correlation = (values[others] for values in pairs)
            worth = correlation + (splits[first] != splits[second])
            np.maximum.at(best, second, worth)
            chosen = worth == best[second]
            partner[second[chosen]] = first[chosen]
        for row in np.flatnonzero(best).tolist():
            place, other = self._seen[row], self._seen[partner[row]]
            across = splits[row] != splits[partner[row]]
            kind, correlation = (kinds.LEAK_NEAR if across else kinds.PHOTO_NEAR), best[row] - across
            yield self._pair(kind, place, other, f"looks like (correlation {correlation:.3f})")

    def _pair(self, kind: Kind, place: int, other: int, words: str) -> Finding:
        photo, earlier = self._photos[place], self._photos[other]
        there = f"{self.layout.shown(Path(earlier.path))} ({earlier.label}) of {earlier.split}"
        file, sight = self.layout.shown(Path(photo.path)), Sight((Path(photo.path), Path(earlier.path)))
        return kind.at(file, f"{photo.label} of {photo.split}", f"{words} {there}", sight)


def _numbered(values: Sequence[Hashable]) -> Int64[np.ndarray, " N"]:
    """The same number for the same value."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
