"""Photos that are there twice: in one split, or, which is worse, in two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
        best: dict[int, tuple[bool, float, int]] = {}  # by photo: whether across splits, how much alike, which one
        thumbnails = np.frombuffer(bytes(self._thumbnails), np.uint8).reshape(-1, SIDE, SIDE)
        for first, second, correlation in alike(np.array(self._hashes, np.uint64), thumbnails):
            one, other = self._seen[first], self._seen[second]
            if self._digests[one] != self._digests[other]:
                across = self._photos[one].split != self._photos[other].split
                best[other] = max(best.get(other, (False, 0.0, 0)), (across, correlation, one))
        for place, (across, correlation, other) in sorted(best.items()):
            yield self._pair(kinds.LEAK_NEAR if across else kinds.PHOTO_NEAR, place, other, "looks like", correlation)

    def _pair(self, kind: Kind, place: int, other: int, words: str, correlation: float | None = None) -> Finding:
        photo, earlier = self._photos[place], self._photos[other]
        there = f"{self.layout.shown(Path(earlier.path))} ({earlier.label}) of {earlier.split}"
        close = "" if correlation is None else f", correlation {correlation:.3f}"
        sight = Sight((Path(photo.path), Path(earlier.path)))
        return kind.at(
            self.layout.shown(Path(photo.path)), f"{photo.label} of {photo.split}", f"{words} {there}{close}", sight
        )
