"""What a data set is like: how many objects of which size, and how crowded they are."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt16

from maskbench.data.cache import cache_folder, recall, remember
from maskbench.data.coco import CocoFile
from maskbench.data.runs import LabelMap, label_maps
from maskbench.data.split import by_hash

VERSION = 1
SAMPLE = 1000
"""Images whose masks are decoded; a larger set is sampled by hash."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
        sampled: photos behind `sizes` and `crowding`.
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

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile(file: CocoFile, key: str, image_ids: Sequence[int] | None = None) -> Profile:
    """The profile of an annotation file, computed once for each `key` (its fingerprint) and choice of images.

    Args:
        file: the annotation file.
        key: its fingerprint.
        image_ids: of its images those that count (None: all).
    """
    images = tuple(file.records) if image_ids is None else tuple(image_ids)
    chosen = "" if image_ids is None else f"-{hashlib.sha256(repr(images).encode()).hexdigest()[:16]}"
    known = cache_folder() / "profiles" / f"{key}{chosen}-{VERSION}.json"
    found = recall(known)
    if isinstance(found, dict) and set(found) == {field.name for field in fields(Profile)}:
        return Profile(**found)
    computed = _compute(file, images)
    remember(known, computed.as_dict())
    return computed


def _compute(file: CocoFile, images: Sequence[int]) -> Profile:
    counts = {image_id: file.counts(image_id) for image_id in images}
    records = [file.records[image_id] for image_id in images]
    per_image = [len(categories) for categories, _ in counts.values()]
    per_class = Counter(category_id for categories, _ in counts.values() for category_id in categories)
    photos = [record.size for record in records]
    sample = by_hash(records)[:SAMPLE]
    areas: list[int] = []
    crowded = 0
    for record in sample:
        objects = [each for each in file.annotations(record.image_id) if not each.crowd]
        areas += [each.area for each in objects]
        crowded += int(touching(label_maps([each.runs for each in objects], record.size), len(objects)).sum())
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
        sampled=len(sample),
    )


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
