"""What a split holds, counted while its photos pass by; and what of that deserves a word."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Finding
from maskbench.data.preflight.looking import Seen
from maskbench.data.preflight.records import Part

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

TINY, TINY_SHARE = 4.0, 0.05
"""Pixels of an object's side (the root of its area) in the network's input: it is one cell of the finest level. And the
share of such objects that is worth telling."""

CROWDS = 0.05
"""Share of crowds among the annotations from which they look like objects that a tool has called so. COCO has 1 %."""

FEW = 2
"""So many of either are told one by one, if at all."""


@dataclass
class Tally:
    """Numbers of one split.

    Attributes:
        photos: how many, `bare` ones without an annotation.
        per_photo: objects of each.
        annotations: how many, of which `crowds`.
        classes: objects by category id.
        sides: root of each mask's area, in pixels of the network's input.
        boxes: how many could be held against a mask, and `corners` how many of these are two corners.
    """

    part: Part
    photos: int = 0
    bare: int = 0
    annotations: int = 0
    crowds: int = 0
    boxes: int = 0
    corners: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    per_photo: array[int] = field(default_factory=lambda: array("I"))
    sides: array[float] = field(default_factory=lambda: array("f"))

    def add(self, seen: Seen) -> int:
        """Count a photo; returns its number of objects."""
        annotations = seen.photo.objects
        own = [each.category for each in annotations if not each.crowd and each.category is not None]
        self.photos += 1
        self.bare += not annotations
        self.annotations += len(annotations)
        self.crowds += sum(each.crowd for each in annotations)
        self.classes.update(own)
        self.per_photo.append(len(own))
        self.sides.extend(area**0.5 for area in seen.areas)
        self.boxes += seen.boxes
        self.corners += seen.corners
        return len(own)

    def findings(self) -> Iterator[Finding]:
        file = self.part.file
        if self.photos and not self.classes.total():
            crowds = f", but {self.crowds} crowd regions" if self.crowds else ""
            yield kinds.OBJECTS_NONE.at(file, self.part.split.name, f"no object on {self.photos} photos{crowds}")
        if self.crowds > max(FEW, CROWDS * self.annotations):
            yield kinds.CROWD_MANY.at(file, "", f"{self.crowds} of {self.annotations} annotations have iscrowd=1")
        if self.corners > max(1, self.boxes / 2):
            yield kinds.BOX_CORNERS.at(
                file, "", f"{self.corners} of {self.boxes} boxes fit their masks as left, top, right and bottom"
            )
        tiny = int((np.frombuffer(self.sides, np.float32) < TINY).sum())
        if tiny > max(FEW, TINY_SHARE * len(self.sides)):
            yield kinds.OBJECTS_TINY.at(
                file, "", f"{tiny} of {len(self.sides)} objects have less than {TINY * TINY:.0f} pixels of the input"
            )

    def as_dict(self) -> dict[str, Any]:
        """What people want to know of it; sizes and counts at `QUANTILES`."""
        return {
            "file": self.part.file,
            "photos": self.photos,
            "bare": self.bare,
            "objects": self.classes.total(),
            "crowds": self.crowds,
            "classes": {name: self.classes[category_id] for category_id, name in self.part.categories.items()},
            "per_photo": _quantiles(np.array(self.per_photo)),
            "sides": _quantiles(np.array(self.sides)),
        }


def _quantiles(values: np.ndarray) -> list[float]:
    return [round(float(value), 1) for value in np.quantile(values, QUANTILES)] if len(values) else []
