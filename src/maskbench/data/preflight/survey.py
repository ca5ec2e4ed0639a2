"""The whole of a data set looked through once: its records, then every photo with its masks, then what splits share."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from maskbench.data.preflight import classes, kinds
from maskbench.data.preflight.findings import SEVERITIES, Finding, Findings, Group, Severity, Sight
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.leakage import Album
from maskbench.data.preflight.looking import Looker, Seen, as_record
from maskbench.data.preflight.names import Folder, unnamed
from maskbench.data.preflight.records import Part, read
from maskbench.data.preflight.tally import Tally
from maskbench.data.runs import MOST
from maskbench.data.semantic import SemanticMaps, open_maps
from maskbench.errors import DataError

VERSION = 3
"""Raised when the same data begin to give other findings."""

SLOW = 500
"""Photos from which looking at them is worth a progress bar."""

THREADS = 8
"""That read and decode, at most, and no more than cores. Reading and decoding happen outside of Python, half of the
work on photographs; that masks are looked at inside of it bounds what more would gain."""

AHEAD = 128
"""Photos that are under way at most: what was seen waits for its turn."""


@dataclass(frozen=True)
class Survey:
    """What was found, and the numbers of each split."""

    layout: Layout
    groups: list[Group]
    tallies: dict[str, Tally]

    def count(self, severity: Severity) -> int:
        """Findings of that severity."""
        return sum(group.count for group in self.groups if group.kind.severity == severity)

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "root": str(self.layout.root),
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "findings": [group.as_dict() for group in self.groups],
            "splits": {name: tally.as_dict() for name, tally in self.tallies.items()},
        }


def survey(layout: Layout) -> Survey:
    """Look through a data set; whatever is wrong with it is a finding and no error.

    Args:
        layout: what is to be looked through.
    """
    found = _Survey(layout)
    # once for all threads, which share the filters: decoders warn of harmless things
    with warnings.catch_warnings(), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        found.run(pool)
    return Survey(layout, found.findings.groups(), found.tallies)


class _Survey:
    """A survey on its way."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.findings = Findings()
        self.album = Album(layout)
        self.folders: dict[str, Folder] = {}
        self.tallies: dict[str, Tally] = {}

    def run(self, pool: ThreadPoolExecutor) -> None:
        parts = self._read()
        maps = self._maps(parts["train"])
        for name, part in parts.items():
            train = name == "train"
            look = Looker(self.layout, maps if train else None, skip=train and self.layout.skip)
            self.tallies[name] = self._photos(part, look, pool)
        for tally in self.tallies.values():
            self.findings.extend(tally.findings())
        if "test" in parts:
            self.findings.extend(classes.learnable(parts, {name: own.classes for name, own in self.tallies.items()}))
        self.findings.extend(self.album.findings())
        semantic = self.layout.semantic
        self.findings.extend(unnamed(self.folders.values(), None if semantic is None else self.layout.path(semantic)))

    def _read(self) -> dict[str, Part]:
        """The records of each split; a file that two splits have is read for the first one alone."""
        parts: dict[str, Part] = {}
        for split in self.layout.splits:
            place = self.layout.path(split.annotations)
            same = [part for part in parts.values() if self.layout.path(part.split.annotations) == place]
            if same:
                words = f"is the file of {same[0].split.name} and of {split.name}"
                self.findings.add(kinds.SPLIT_SAME.at(same[0].file, "", words))
                continue
            parts[split.name] = read(self.layout, split, self.findings)
            self.findings.extend(classes.named(parts[split.name]))
        for name, part in parts.items():
            if name != "train" and parts["train"].categories:
                self.findings.extend(classes.agreeing(parts["train"], part))
        return parts

    def _maps(self, train: Part) -> SemanticMaps | None:
        """The maps of the training photos, opened; None where there are none to be had."""
        if self.layout.semantic is None:
            return None
        try:
            maps = open_maps(self.layout.path(self.layout.semantic))
            maps.files(filter(None, map(as_record, train.photos)))
        except DataError as error:
            self.findings.add(kinds.MAP_BROKEN.at(self.layout.semantic, "", str(error)))
            return None
        return maps

    # Photo by photo ---------------------------------------------------------------------------------------------------

    def _photos(self, part: Part, look: Looker, pool: ThreadPoolExecutor) -> Tally:
        """Look at all photos of a split."""
        tally, count = Tally(part), len(part.photos)
        seen = _in_order(pool, look, self._located(part))
        title, console = f"looking through {part.split.name}", Console(stderr=True)
        for each in track(seen, title, count, console=console, transient=True, disable=count < SLOW):
            self.findings.extend(each.findings)
            if each.path is not None and each.look is not None:
                self.album.add(part.split.name, each.photo.label, each.path, each.look.digest, each.look.likeness)
            self.findings.extend(self._crowding(part, each, tally.add(each)))
        return tally

    def _located(self, part: Part) -> Iterator[Seen]:
        """The photos with their files."""
        folder = self.folders.setdefault(part.split.images, Folder(self.layout, part.split.images))
        first: dict[Path, str] = {}
        for photo in part.photos:
            findings: list[Finding] = []
            path = folder.locate(photo, findings)
            if path is not None and (earlier := first.setdefault(path, photo.label)) != photo.label:
                words = f"is the photo of {earlier} too"
                findings.append(kinds.RECORD_TWICE.at(self.layout.shown(path), photo.label, words, Sight((path,))))
            yield Seen(photo, path, findings)

    def _crowding(self, part: Part, seen: Seen, objects: int) -> Iterator[Finding]:
        """What the number of objects on a photo tells."""
        label = seen.photo.label
        if not seen.photo.objects:
            yield kinds.PHOTO_BARE.at(part.file, label, "has no annotation", seen.sight)
        if objects > MOST:
            yield kinds.OBJECTS_UNTOLD.at(part.file, label, f"has {objects} objects, expected at most {MOST}")
        elif objects > self.layout.max_instances:
            words = f"has {objects} objects, but evaluation.point.max_instances={self.layout.max_instances}"
            yield kinds.OBJECTS_BEYOND.at(part.file, label, words, seen.sight)


def _in_order(pool: ThreadPoolExecutor, work: Looker, items: Iterable[Seen]) -> Iterator[Seen]:
    """The items when they were worked on, in their order; few are under way, so that memory stays as it is."""
    waiting: deque[Future[Seen]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
