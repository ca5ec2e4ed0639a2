"""Annotation files read tolerantly: a faulty record is a finding, and what can be made of it is kept.

CocoFile, which training reads with, stops at the first fault. This reader goes on, and finds an error in whatever
CocoFile refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskbench.data.coco import KEYS, json_files, with_file_name
from maskbench.data.photos import LARGEST_PHOTO
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Findings, Kind
from maskbench.data.preflight.layout import Layout, Split


@dataclass(slots=True)
class Object:
    """An annotation; `category` is None where there is no such one, `content` the record as it stands."""

    label: str
    category: int | None
    crowd: bool
    content: dict[str, Any]


@dataclass(slots=True)
class Photo:
    """An image record with its annotations; `name` and `size` (height, width) are None where they can't be used."""

    label: str
    image_id: Any
    name: str | None
    size: tuple[int, int] | None
    objects: list[Object] = field(default_factory=list)


@dataclass
class Part:
    """What could be read of a split; `file` is the annotation file's path from the root."""

    split: Split
    file: str
    categories: dict[int, str]
    photos: list[Photo]


def read(layout: Layout, split: Split, findings: Findings) -> Part:
    """The records of a split; what is wrong with them is added to `findings`."""
    path = layout.path(split.annotations)
    reader = _Reader(layout.shown(path), findings)
    content = reader.content(path)
    categories = reader.categories(content["categories"])
    photos = reader.photos(content["images"])
    reader.annotate(content["annotations"], photos, categories)
    return Part(split, reader.file, categories, photos)


class _Reader:
    """Reads the records of one file and tells of them."""

    def __init__(self, file: str, findings: Findings) -> None:
        self.file, self.findings = file, findings

    def tell(self, kind: Kind, record: str, found: str) -> None:
        self.findings.add(kind.at(self.file, record, found))

    # The file ---------------------------------------------------------------------------------------------------------

    def content(self, path: Path) -> dict[str, list[Any]]:
        """Its three lists, empty where they are not to be had."""
        lists: dict[str, list[Any]] = {key: [] for key in KEYS}
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            self.tell(kinds.FILE_MISSING, "", f"no such file; {json_files(path.parent)}")
            return lists
        except OSError as error:
            self.tell(kinds.FILE_MISSING, "", f"can't be read ({error.strerror})")
            return lists
        except (ValueError, RecursionError) as error:
            self.tell(kinds.FILE_UNREADABLE, "", str(error))
            return lists
        if not isinstance(content, dict):
            hint = ", as results have it" if isinstance(content, list) else ""
            self.tell(kinds.FILE_FORM, "", f"has a {type(content).__name__} at its top{hint}")
            return lists
        for key in KEYS:
            if isinstance(content.get(key), list):
                lists[key] = content[key]
            else:
                found = f"is a {type(content[key]).__name__}" if key in content else f"is not among {_names(content)}"
                self.tell(kinds.FILE_FORM, "", f"the list `{key}` {found}")
        for key in ("images", "categories"):
            if isinstance(content.get(key), list) and not lists[key]:
                self.tell(kinds.FILE_NOTHING, "", f"has no {key}")
        return lists

    # Its records ------------------------------------------------------------------------------------------------------

    def categories(self, records: list[Any]) -> dict[int, str]:
        """Names by id, ascending; of two with one id the first one."""
        named: dict[int, str] = {}
        for place, record, category_id in self._records("categories", "category", records):
            name = self._field(record, label := _label("category", category_id, place, "categories"), "name", str)
            if isinstance(category_id, int):
                named.setdefault(category_id, f"category {label}" if name is None else name)
        return dict(sorted(named.items()))

    def photos(self, records: list[Any]) -> list[Photo]:
        photos = []
        for place, found, image_id in self._records("images", "image", records):
            record, label = with_file_name(found), _label("image", image_id, place, "images")
            name = self._field(record, label, "file_name", str)
            photos.append(Photo(label, image_id, name, self._size(record, label)))
        return photos

    def annotate(self, records: list[Any], photos: list[Photo], categories: dict[int, str]) -> None:
        """Hand each annotation to its photo; those of no photo are told of and left out."""
        known: dict[Any, Photo] = {}
        for photo in photos:
            if isinstance(photo.image_id, int | str | float):
                known.setdefault(photo.image_id, photo)
        for place, record, annotation_id in self._records("annotations", "annotation", records):
            label = _label("annotation", annotation_id, place, "annotations")
            if annotation_id == 0 and annotation_id is not False:
                self.tell(kinds.ID_ZERO, label, "its id is 0")
            image_id, category_id = (
                self._reference(record, label, "image_id"),
                self._reference(record, label, "category_id"),
            )
            if isinstance(image_id, int) and image_id not in known:
                self.tell(kinds.IMAGE_UNKNOWN, label, f"belongs to image {image_id}, which `images` does not list")
            if isinstance(category_id, int) and category_id not in categories:
                self.tell(kinds.CATEGORY_UNKNOWN, label, f"has category {category_id}, which `categories` lacks")
            if image_id in known:
                crowd = self._crowd(record, label)
                category = category_id if category_id in categories else None
                known[image_id].objects.append(Object(label, category, crowd, record))

    def _records(self, key: str, word: str, records: list[Any]) -> Iterator[tuple[int, dict[str, Any], Any]]:
        """Place, record and id of each that is an object; the ids are looked at."""
        seen: set[Any] = set()
        for place, record in enumerate(records):
            if not isinstance(record, dict):
                self.tell(kinds.RECORD_FORM, f"{key}[{place}]", f"is {record!r:.60}")
                continue
            if "id" not in record:
                self.tell(kinds.ID_MISSING, f"{key}[{place}]", f"has {_names(record)}")
                yield place, record, None
                continue
            own = record["id"]
            label = _label(word, own, place, key)
            if not isinstance(own, int) or isinstance(own, bool):
                self.tell(kinds.ID_FORM, f"{key}[{place}]", f"its id is {own!r:.60}")
            elif own in seen:
                self.tell(kinds.ID_TWICE, label, f"{key}[{place}] has the id {own} of an earlier {word}")
            elif abs(own) >= 2**63:
                self.tell(kinds.ID_RANGE, label, f"its id has {own.bit_length()} bits")
            if isinstance(own, int | float | str):
                seen.add(own)
            yield place, record, own

    def _field(self, record: dict[str, Any], label: str, name: str, expected: type) -> Any | None:
        """The field if it is of that type; a bool is no number."""
        if name not in record:
            self.tell(kinds.FIELD_MISSING, label, f"lacks `{name}`, has {_names(record)}")
            return None
        value = record[name]
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            self.tell(kinds.FIELD_FORM, label, f"`{name}` is {value!r:.60}, expected {expected.__name__}")
            return None
        return value

    def _reference(self, record: dict[str, Any], label: str, name: str) -> Any | None:
        """The id of another record, as it stands where that can be looked up."""
        if name not in record:
            self.tell(kinds.FIELD_MISSING, label, f"lacks `{name}`, has {_names(record)}")
            return None
        value = record[name]
        if not isinstance(value, int) or isinstance(value, bool):
            self.tell(kinds.ID_FORM, label, f"`{name}` is {value!r:.60}")
        return value if isinstance(value, int | float | str) else None

    def _size(self, record: dict[str, Any], label: str) -> tuple[int, int] | None:
        height, width = (self._field(record, label, name, int) for name in ("height", "width"))
        if height is None or width is None:
            return None
        if height < 1 or width < 1 or height * width > LARGEST_PHOTO:
            self.tell(kinds.SIZE_FORM, label, f"is {height} x {width} pixels (height x width)")
            return None
        return height, width

    def _crowd(self, record: dict[str, Any], label: str) -> bool:
        value = record.get("iscrowd")
        if value is not None and not (isinstance(value, int | float) and value in (0, 1)):
            self.tell(kinds.CROWD_FORM, label, f"`iscrowd` is {value!r:.60}")
            return False
        return bool(value)


def _label(word: str, own: Any, place: int, key: str) -> str:
    """What a record is called: by its id, or by its place where the id names nothing."""
    named = isinstance(own, int | str | float) and not isinstance(own, bool)
    return f"{word} {own!r:.40}" if named else f"{key}[{place}]"


def _names(record: dict[str, Any]) -> str:
    return ", ".join(map(str, record)) or "nothing"
