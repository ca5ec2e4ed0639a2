"""COCO's annotation files."""

from __future__ import annotations

import json
import os
import pickle
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from maskbench.data.groups import Grouping
from maskbench.data.photos import LARGEST_PHOTO
from maskbench.data.runs import UNDRAWABLE, Runs, run_lengths
from maskbench.errors import DataError, few

KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Record:
    """An image as the annotation file has it.

    Args:
        size: height and width in pixels.
        group: what it belongs to; None where nobody asked.
    """

    image_id: int
    file_name: str
    size: tuple[int, int]
    group: str | None = None


@dataclass(frozen=True)
class Annotation:
    """One object, or one crowd region, of an image; `runs` are its mask in the photo's pixels."""

    category_id: int
    crowd: bool
    runs: Runs

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.runs[1::2].sum())


class CocoFile:
    """An annotation file, read and checked once; masks are decoded one image at a time.

    Attributes:
        path: the file.
        categories: names by category id, ascending.
        records: images by image id, ascending.

    Args:
        path: the file.
        grouping: tells the group of each image (None: images are on their own).

    Raises:
        DataError: the file is no json, a record lacks something or refers to what is not there.
    """

    def __init__(self, path: str | Path, grouping: Grouping | None = None) -> None:
        self.path, self._grouping = Path(path), grouping
        content = self._read()
        self.categories = self._categories(content["categories"])
        self.records = self._records(content["images"])
        self._slots = {image_id: slot for slot, image_id in enumerate(self.records)}
        self._pack(content["annotations"])

    def __len__(self) -> int:
        return len(self.records)

    def annotations(self, image_id: int) -> list[Annotation]:
        """The objects and crowd regions of an image, in the order of the file.

        Raises:
            DataError: a mask can't be decoded.
        """
        size = self.records[image_id].size
        return [
            Annotation(category_id, crowd, self._decode(annotation_id, segmentation, size))
            for annotation_id, category_id, crowd, segmentation in self._unpack(image_id)
        ]

    def counts(self, image_id: int) -> tuple[list[int], int]:
        """Category ids of an image's objects, and how many crowd regions it has; decodes nothing."""
        rows = self._unpack(image_id)
        return [category_id for _, category_id, crowd, _ in rows if not crowd], sum(row[2] for row in rows)

    def _decode(self, annotation_id: int, segmentation: list | dict[str, Any], size: tuple[int, int]) -> Runs:
        try:
            return run_lengths(segmentation, size)
        except UNDRAWABLE as error:
            raise self._error(
                f"the segmentation of annotation {annotation_id} can't be decoded: {error}",
                "export that object again, or remove its record",
            ) from error

    # Reading and checking ---------------------------------------------------------------------------------------------

    def _error(self, found: str, remedy: str) -> DataError:
        return DataError(f"{self.path}: {found}; {remedy}")

    def _read(self) -> dict[str, list]:
        try:
            content = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            raise DataError(missing_annotations(self.path)) from None
        except OSError as error:
            raise self._error(f"can't be read ({error.strerror})", "name a readable json file") from error
        except (ValueError, RecursionError) as error:
            raise self._error(f"is no json ({error})", "a COCO annotation file was expected") from error
        if not isinstance(content, dict):
            raise self._error(
                f"found a {type(content).__name__} at its top, expected images, annotations and categories",
                "a list is what COCO's results look like; name the annotation file",
            )
        for key in KEYS:
            if not isinstance(content.get(key), list):
                found = f"holds {', '.join(map(str, content)) or 'nothing'}" if key not in content else "it is no list"
                raise self._error(f"needs a list `{key}`, but {found}", "a COCO instances file has all three lists")
        return {key: content[key] for key in KEYS}

    def _fields(self, record: Any, kind: str, place: int, **types: type) -> list[Any]:
        """The named fields of a record, each of its type."""
        if not isinstance(record, dict):
            raise self._error(f"{kind}[{place}] is {record!r:.60}", "a record with named fields was expected")
        for name, expected in types.items():
            if name not in record:
                label = f"{kind}[{place}]" + (f" (id {record['id']!r})" if "id" in record else "")
                raise self._error(
                    f"{label} lacks `{name}`, it has {', '.join(record)}", f"add `{name}` to every record"
                )
            value = record[name]
            if not isinstance(value, expected) or (isinstance(value, int) and not _is_whole(value)):
                raise self._error(
                    f"`{name}` of {kind}[{place}] is {value!r:.60}, expected {expected.__name__}", "mend the record"
                )
        return [record[name] for name in types]

    def _categories(self, records: list) -> dict[int, str]:
        pairs = [self._fields(record, "categories", place, id=int, name=str) for place, record in enumerate(records)]
        self._unique((category_id for category_id, _ in pairs), "category")
        if not pairs:
            raise self._error("has no categories", "name at least one")
        return dict(sorted(pairs))

    def _records(self, images: list) -> dict[int, Record]:
        records = []
        for place, image in enumerate(images):
            named = with_file_name(image)
            image_id, name, height, width = self._fields(
                named, "images", place, id=int, file_name=str, height=int, width=int
            )
            if height < 1 or width < 1:
                raise self._error(f"image {image_id} is {height} x {width} pixels", "give its stored height and width")
            if height * width > LARGEST_PHOTO:
                raise self._error(
                    f"image {image_id} is {height} x {width} pixels, and a photo may have {LARGEST_PHOTO}",
                    "cut it into tiles",
                )
            if wrong := wrong_name(name):
                raise self._error(
                    f"`file_name` of image {image_id} is {name!r:.80}, which {wrong}",
                    "name files below the image folder, which data.train_images and data.test_images set",
                )
            records.append(Record(image_id, name, (height, width), self._group(named)))
        self._unique((record.image_id for record in records), "image")
        if not records:
            raise self._error("has no images", "name a file with at least one")
        return {record.image_id: record for record in sorted(records, key=lambda record: record.image_id)}

    def _group(self, image: dict[str, Any]) -> str | None:
        try:
            return None if self._grouping is None else self._grouping(image)
        except ValueError as error:
            raise self._error(f"of image {image['id']}, {error}", "give every image its group") from error

    def _unique(self, ids: Iterable[int], kind: str) -> None:
        seen: set[int] = set()
        for each in ids:
            if each in seen:
                raise self._error(f"{kind} id {each} occurs twice", "every id must be its own")
            seen.add(each)

    def _checked(self, annotations: list) -> Iterator[tuple[int, tuple]]:
        """Slot of the image and the row to keep, for each annotation."""
        for place, annotation in enumerate(annotations):
            annotation_id, image_id, category_id, segmentation = self._fields(
                annotation, "annotations", place, id=int, image_id=int, category_id=int, segmentation=object
            )
            if image_id not in self.records:
                raise self._error(
                    f"annotation {annotation_id} belongs to image {image_id}, which `images` does not list",
                    "list the image, or remove the annotation",
                )
            if category_id not in self.categories:
                raise self._error(
                    f"annotation {annotation_id} has category {category_id}, but there are {few(self.categories)}",
                    "list the category, or remove the annotation",
                )
            wrong = wrong_segmentation(segmentation, self.records[image_id].size)
            if wrong:
                raise self._error(
                    f"the segmentation of annotation {annotation_id} {wrong}", "mend or remove the record"
                )
            yield self._slots[image_id], (annotation_id, category_id, bool(annotation.get("iscrowd", 0)), segmentation)

    # Keeping ----------------------------------------------------------------------------------------------------------

    def _pack(self, annotations: list) -> None:
        """Keep the annotations as bytes, image by image.

        A million small Python objects would be copied into every worker page by page, as reading one writes its
        reference count; an array of bytes is shared.
        """
        rows: list[list[tuple]] = [[] for _ in self.records]
        for slot, row in self._checked(annotations):
            rows[slot].append(row)
        self._unique((row[0] for image in rows for row in image), "annotation")
        packed = [pickle.dumps(image, protocol=pickle.HIGHEST_PROTOCOL) for image in rows]
        self._ends = np.cumsum([len(image) for image in packed])
        self._bytes = np.frombuffer(b"".join(packed), np.uint8)

    def _unpack(self, image_id: int) -> list[tuple]:
        slot = self._slots[image_id]
        start = int(self._ends[slot - 1]) if slot else 0
        return pickle.loads(self._bytes[start : self._ends[slot]].data)


def read_file(path: Path, grouping: Grouping | None = None) -> CocoFile:
    """As `CocoFile`, read once while the file's size and time of modification stay; of the last few files."""
    try:
        state = path.stat()
    except OSError:  # which the reader tells of
        return CocoFile(path, grouping)
    return _read(path, grouping, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=3)  # train, tune and test; each may have hundreds of megabytes
def _read(path: Path, grouping: Grouping | None, size: int, written: int) -> CocoFile:
    return CocoFile(path, grouping)


def with_file_name(image: Any) -> Any:
    """The image record with a `file_name` of forward slashes, which exports of Windows don't have.

    LVIS has none: there it is folder and file of `coco_url`, as COCO 2017 is unpacked.
    """
    if not isinstance(image, dict):
        return image
    name, url = image.get("file_name"), image.get("coco_url")
    if "file_name" not in image and isinstance(url, str):
        return {**image, "file_name": "/".join(url.split("/")[-2:])}
    return {**image, "file_name": name.replace("\\", "/")} if isinstance(name, str) and "\\" in name else image


def missing_annotations(path: Path) -> str:
    """What to say when there is no such annotation file: which ones there are, and how to name one."""
    return (
        f"{path}: no such file; {json_files(path.parent)}; set data.root to the data set's folder and "
        "data.train_annotations, data.test_annotations (and data.tune_annotations) to the json files in it"
    )


def json_files(folder: Path) -> str:
    """Which there are in a folder, in words."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    found = sorted(each.name for each in folder.glob("*.json"))
    return f"{folder} holds {', '.join(found) or 'no json file'}"


def _is_whole(value: int) -> bool:
    """Whether a number is neither a truth value nor one that has no place in 64 bits."""
    return not isinstance(value, bool) and abs(value) < 2**63


def wrong_name(name: str) -> str | None:
    """Why a file's name is none below a folder; folders and symbolic links below it are the owner's own."""
    if not name.strip("./") or "\0" in name:
        return "is no name of a file"
    if name.startswith("/"):
        return "lies wherever it likes"
    return "climbs out of the image folder" if ".." in name.split("/") else None


def stored(folder: Path, name: str) -> Path:
    """A file by its name; where an accent may be written in two ways (Unicode's NFC and NFD), by that of the disc.

    Archives that were made on one system and unpacked on another have names of the one kind and a json with the other.
    """
    path = folder / name
    if name.isascii() or os.path.exists(path):
        return path
    forms = (folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    return next((each for each in forms if os.path.exists(each)), path)


def wrong_segmentation(segmentation: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with it as far as its form goes, without decoding it."""
    if isinstance(segmentation, list):
        if not segmentation:
            return "has no polygon"
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                return f"has {polygon!r:.60} for a polygon, expected [x, y, …] of at least three points"
        return None
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str):
        return f"is {segmentation!r:.60}, expected polygons or an RLE with `size` and `counts`"
    if segmentation.get("size") != list(size):
        return f"has an RLE of size {segmentation.get('size')}, but its image is [height, width] = {list(size)}"
    return None
