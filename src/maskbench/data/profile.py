"""What a data set is like: how many objects of which size, where they lie, and how crowded they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt16

from maskbench.data.cache import cache_folder, recall, remember
from maskbench.data.coco import Annotation, CocoFile, Record, read_file
from maskbench.data.fingerprint import fingerprint
from maskbench.data.groups import Grouping
from maskbench.data.runs import LabelMap, extent, label_maps
from maskbench.data.split import by_hash, split_off

VERSION = 3
SAMPLE = 1000
"""Images whose masks are decoded; a larger set is sampled by hash."""
OBJECTS = 50_000
"""Objects from which on no further image of the sample is decoded."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Objects:
    """The objects of a sample of photos one by one, in photo pixels; crowds and masks without a pixel are left out.

    Attributes:
        photos: height and width of each photo.
        rows: of each object the row of its photo, the left, top, right and bottom edge of its box (the last two
            exclusive), the mean column and row index of its pixels, and their number.
    """

    photos: list[list[int]]
    rows: list[list[float]]


@dataclass(frozen=True)
class Profile:
    """Statistics of a training file (train and tune together, never test).

    Attributes:
        classes: instances of each class, by name, in the order of labels.
        images: photos, with `empty` ones that have no object.
        instances: objects without crowds; `crowds` regions.
        photo_sides: short and long side of the photos at `QUANTILES`, in pixels.
        per_image: instances a photo at `QUANTILES`; `most_per_image` their maximum.
        sizes: square root of an instance's area at `QUANTILES`, in photo pixels.
        crowding: share of instances that touch another one (share a border or corner of a pixel, or overlap).
        sampled: photos behind `sizes`, `crowding` and `objects`.
        objects: what settings are fitted to (`data.fitting`).
    """

    classes: dict[str, int]
    images: int
    empty: int
    instances: int
    crowds: int
    photo_sides: dict[str, list[float]]
    per_image: list[float]
    most_per_image: int
    sizes: list[float]
    crowding: float
    sampled: int
    objects: Objects

    def as_dict(self) -> dict[str, Any]:
        """What can be read at a glance: all but the single objects."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "objects"}


def profile_at(
    root: Path, annotations: str, test_share: float | None = None, grouping: Grouping | None = None
) -> Profile:
    """The profile of an annotation file, without what of it is set apart for testing; not read if it is known.

    Raises:
        DataError: the file is missing or broken.
    """
    key = fingerprint(root, [annotations])
    if test_share is not None:
        by = None if grouping is None else grouping.by
        key += f"-{hashlib.sha256(f'{test_share}/{by}'.encode()).hexdigest()[:16]}"
    if known := _known(key):
        return known
    file = read_file(root / annotations, grouping)
    found = _compute(file, split_off(file.records.values(), test_share or 0.0)[0])
    remember(_place(key), asdict(found))
    return found


def _place(key: str) -> Path:
    return cache_folder() / "profiles" / f"{key}-{VERSION}.json"


def _known(key: str) -> Profile | None:
    """What was computed before; None if there is nothing that can be read."""
    found = recall(_place(key))
    if not isinstance(found, dict) or set(found) != {field.name for field in fields(Profile)}:
        return None
    return Profile(**{**found, "objects": Objects(**found["objects"])})


def _compute(file: CocoFile, images: Sequence[int]) -> Profile:
    counts = {image_id: file.counts(image_id) for image_id in images}
    records = [file.records[image_id] for image_id in images]
    per_image = [len(categories) for categories, _ in counts.values()]
    per_class = Counter(category_id for categories, _ in counts.values() for category_id in categories)
    photos = [record.size for record in records]
    objects = Objects([], [])
    areas: list[int] = []
    crowded = 0
    for record in by_hash(records)[:SAMPLE]:
        if len(areas) >= OBJECTS:
            break
        own = [each for each in file.annotations(record.image_id) if not each.crowd]
        areas += [each.area for each in own]
        crowded += int(touching(label_maps([each.runs for each in own], record.size), len(own)).sum())
        objects.rows.extend(_rows(record, own, photo=len(objects.photos)))
        objects.photos.append(list(record.size))
    return Profile(
        classes={name: per_class[category_id] for category_id, name in file.categories.items()},
        images=len(images),
        empty=per_image.count(0),
        instances=sum(per_image),
        crowds=sum(crowds for _, crowds in counts.values()),
        photo_sides={
            "short": _quantiles([min(size) for size in photos]),
            "long": _quantiles([max(size) for size in photos]),
        },
        per_image=_quantiles(per_image),
        most_per_image=max(per_image),
        sizes=_quantiles([area**0.5 for area in areas]),
        crowding=crowded / max(1, len(areas)),
        sampled=len(objects.photos),
        objects=objects,
    )


def _rows(record: Record, annotations: Sequence[Annotation], photo: int) -> Iterator[list[float]]:
    """The objects of a photo as `Objects` has them, centres to a hundredth of a pixel."""
    for each in annotations:
        if found := extent(each.runs, record.size[0]):
            centre = (round(coordinate, 2) for coordinate in found.centre)
            yield [photo, *found.box, *centre, each.area]


def _quantiles(values: Sequence[float]) -> list[float]:
    return [round(float(value), 2) for value in np.quantile(values, QUANTILES)] if values else []


def touching(maps: Sequence[LabelMap], count: int) -> Bool[np.ndarray, " N"]:
    """Which of `count` instances share a border or a corner of a pixel with another one, or overlap it."""
    found = np.zeros(count + 1, bool)
    for index, first in enumerate(maps):
        for second in maps[index:]:
            for down, right in ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1)):
                _mark(found, *_shifted(first, second, down, right))
                _mark(found, *_shifted(second, first, down, right))
    return found[1:]


_Part = UInt16[np.ndarray, "rows columns"]


def _shifted(first: LabelMap, second: LabelMap, down: int, right: int) -> tuple[_Part, _Part]:
    """The parts of two maps that lie on each other when `second` moves up by `down` and left by `right`."""
    height, width = first.shape
    here = first[: height - down, max(0, -right) : width - max(0, right)]
    there = second[down:, max(0, right) : width + min(0, right)]
    return here, there


def _mark(found: Bool[np.ndarray, " M"], here: _Part, there: _Part) -> None:
    meet = (here != there) & (here != 0) & (there != 0)
    found[here[meet]] = True
    found[there[meet]] = True
