"""One photo with its annotations looked at, which threads do side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from maskbench.data.coco import Record
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Finding, Kind, Sight
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.masks import Mask, area_faults, box_faults, crowd_faults, draw, has_corners, mask_faults
from maskbench.data.preflight.photos import Look, look
from maskbench.data.preflight.records import Object, Photo
from maskbench.data.resize import fitted
from maskbench.data.semantic import SemanticMaps
from maskbench.errors import DataError

UNREADABLE = (kinds.PHOTO_EMPTY, kinds.PHOTO_NONE, kinds.PHOTO_BROKEN)
"""What may be wrong with a photo for it to be skipped: with it alone, and not with how all were exported."""


@dataclass
class Seen:
    """What came of one photo.

    Attributes:
        photo: its record.
        path: of its file; None where that can't be read.
        findings: what is wrong with it and its masks.
        look: what the file is like; None without a path.
        areas: of the objects' masks, in pixels of the network's input.
        boxes: how many can be held against a mask, and `corners` how many of these are two corners.
    """

    photo: Photo
    path: Path | None
    findings: list[Finding]
    look: Look | None = None
    areas: list[float] = field(default_factory=list)
    boxes: int = 0
    corners: int = 0

    @property
    def sight(self) -> Sight | None:
        return Sight((self.path,)) if self.path else None


class Looker:
    """Fills in what photos are like.

    Args:
        layout: of the data set.
        maps: of the photos' stuff and things, if there are any.
        skip: whether photos that can't be read are to be left out.
    """

    def __init__(self, layout: Layout, maps: SemanticMaps | None, skip: bool = False) -> None:
        self.layout, self.maps, self.skip = layout, maps, skip

    def __call__(self, seen: Seen) -> Seen:
        photo = seen.photo
        if seen.path is not None:
            seen.look = look(seen.path)
            seen.findings += self._photo(seen, seen.path, seen.look)
        if (size := photo.size or (seen.look.size if seen.look else None)) is not None:
            seen.findings += self._masks(seen, size)
        if self.maps is not None and (record := as_record(photo)) is not None:
            try:
                self.maps(record)
            except DataError as error:
                seen.findings.append(kinds.MAP_BROKEN.at(self.layout.semantic or "", photo.label, str(error)))
        return seen

    def _photo(self, seen: Seen, path: Path, found: Look) -> Iterator[Finding]:
        file, photo = self.layout.shown(path), seen.photo
        for kind, words in found.faults:
            skipped = self.skip and kind in UNREADABLE
            yield (kinds.PHOTO_SKIPPED if skipped else kind).at(file, photo.label, words, seen.sight)
        if found.size is None:
            return
        turned = f"EXIF orientation {found.turned}"
        if photo.size is not None and found.size != photo.size:
            stored, told = (f"{height} x {width}" for height, width in (found.size, photo.size))
            why = f", as viewers turn it ({turned})" if found.turned > 4 else ", height and width exchanged"
            why = why if found.size == photo.size[::-1] else ""
            words = f"has {stored} pixels (height x width), but its record says {told}{why}"
            yield kinds.PHOTO_SIZE.at(file, photo.label, words, seen.sight)
        elif found.turned > 1:
            objects = tuple(each.content for each in photo.objects)
            yield kinds.PHOTO_TURNED.at(file, photo.label, f"has {turned}", Sight((path,), objects))

    def _masks(self, seen: Seen, size: tuple[int, int]) -> Iterator[Finding]:
        scale = fitted(size, self.layout.short, self.layout.long)[0] / size[0]
        file = self.layout.shown(seen.path) if seen.path else str(seen.photo.name)
        drawn: dict[bytes, Object] = {}
        for each in seen.photo.objects:
            faults: list[tuple[Kind, str]] = []
            mask = draw(each.content, size, faults)
            if mask is not None:
                faults += [*mask_faults(mask, size), *_again(each, mask, drawn)]
                self._count(seen, each, mask, scale)
            faults += [*box_faults(each.content, mask), *area_faults(each, mask), *crowd_faults(each)]
            if faults:
                sight = Sight((seen.path,), (each.content,)) if seen.path else None
                label = f"{each.label} of {seen.photo.label}"
                yield from (kind.at(file, label, words, sight) for kind, words in faults)

    def _count(self, seen: Seen, each: Object, mask: Mask, scale: float) -> None:
        if not each.crowd:
            seen.areas.append(mask.area * scale**2)
        if mask.area and each.content.get("bbox"):
            seen.boxes += 1
            seen.corners += has_corners(each.content, mask)


def _again(each: Object, mask: Mask, drawn: dict[bytes, Object]) -> Iterator[tuple[Kind, str]]:
    """Whether an earlier annotation of the photo has the same mask."""
    if mask.area and (earlier := drawn.setdefault(mask.counts, each)) is not each:
        kind = kinds.OBJECT_TWICE if earlier.category == each.category else kinds.OBJECT_CLASSES
        yield kind, f"has the mask of {earlier.label}"


def as_record(photo: Photo) -> Record | None:
    """As the strict reader has it, where it can be one."""
    if not isinstance(photo.image_id, int) or photo.name is None or photo.size is None:
        return None
    return Record(photo.image_id, photo.name, photo.size)
