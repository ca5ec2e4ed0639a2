"""The untouched annotation json as the evaluator reads it."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pycocotools.mask as rle_codec

from maskbench.errors import DataError
from maskbench.ops.polygons import rasterise
from maskbench.ops.run_lengths import read_runs

Geometry = Literal["segm", "bbox"]
"""What of an annotation is looked at: its mask or its box."""

COCO_INSTANCES, LVIS_INSTANCES = 100, 300
"""Detections that count: COCO's of an image and class, LVIS's of an image."""

LARGEST = 2**31
"""Pixels of a mask: pycocotools counts them in 32 bits."""


class Kind(NamedTuple):
    """What a field of a record holds."""

    words: str
    holds: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether it is a finite number, to JSON as well, which tells it from true and false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


def is_box(value: Any) -> bool:
    """Whether it is a list of four numbers, or an empty one, which tells as much as none."""
    return isinstance(value, list) and len(value) in (0, 4) and all(map(is_number, value))


ID = Kind("a whole number", _is_id)
LISTED = Kind("a list of whole numbers", _are_ids)
NUMBER = Kind("a number", is_number)
FLAG = Kind("0 or 1", lambda value: value in (0, 1))
SIDE = Kind("pixels", lambda value: type(value) is int and 0 < value <= LARGEST)

REQUIRED = ("id", "image_id", "category_id")
"""Of the fields below, those that no record lacks."""

KINDS: dict[str, dict[str, Kind]] = {
    "images": {
        "id": ID,
        "height": SIDE,
        "width": SIDE,
        **dict.fromkeys(("neg_category_ids", "not_exhaustive_category_ids"), LISTED),
    },
    "categories": {"id": ID, "name": Kind("text", lambda value: isinstance(value, str))},
    "annotations": {
        **dict.fromkeys(REQUIRED, ID),
        "area": NUMBER,
        "bbox": Kind("[x, y, width, height]", is_box),
        "iscrowd": FLAG,
        "ignore": FLAG,
    },
}
"""What the evaluator reads of the file: the fields of each list's records."""


class GroundTruth:
    """A COCO annotation file, checked once and read for masks or boxes.

    What a file leaves out is filled in: `iscrowd` is 0, `bbox` is the mask's, `area` the mask's or, among boxes, the
    box's.

    Attributes:
        images: what the file says of each image, by id.
        classes: names by category id.
        federated: whether each image was searched for some classes alone, as in LVIS (Gupta et al., CVPR 2019): it says
            then for which in vain (`neg_category_ids`).
        frequency: LVIS's word for how many training images have the class (r, c, f), by category id in the order of
            `classes`; None where the file does not tell.

    Args:
        path: the json.
        image_ids: the images that count (default: all of the json); of the others nothing is kept.

    Raises:
        DataError: the file can't be read, lacks images, categories or annotations, or lists none or not all of
            `image_ids`.
    """

    def __init__(self, path: str | Path, image_ids: Iterable[int] | None = None) -> None:
        self.path = Path(path)
        content = _read(self.path)
        self.images: dict[int, dict[str, Any]] = {image["id"]: image for image in content["images"]}
        if image_ids is not None:
            self.images = {image: self.images[image] for image in self.known(image_ids)}
        self.classes: dict[int, str] = _class_names(content["categories"])
        self.federated = any("neg_category_ids" in image for image in content["images"])
        words = {category["id"]: category.get("frequency") for category in content["categories"]}
        self.frequency = {category: words[category] for category in self.classes}
        # pycocotools passes over annotations of images or categories that the file doesn't list; so do we.
        self._annotations = [
            annotation
            for annotation in content["annotations"]
            if annotation["image_id"] in self.images and annotation["category_id"] in self.classes
        ]
        self._prepared: dict[str, list[dict[str, Any]]] = {}
        if any(annotation["id"] == 0 for annotation in self._annotations):
            warnings.warn(
                f"{self.path}: an annotation has id 0, which COCO's evaluation takes for 'unmatched': "
                "that object counts as missed. Number the annotations from 1.",
                stacklevel=2,
            )

    def known(self, image_ids: Iterable[int]) -> list[int]:
        """The ids, ascending, each once.

        Raises:
            DataError: there are none, or one is not listed.
        """
        images = sorted(set(image_ids))
        unknown = [image for image in images if image not in self.images]
        if unknown or not images:
            raise DataError(f"{self.path}: expected images among its {len(self.images)}, found {unknown or 'none'}")
        return images

    def annotations(self, geometry: Geometry) -> list[dict[str, Any]]:
        """Every annotation with its mask run-length encoded (segm) or its box (bbox), for the evaluator alone.

        Raises:
            DataError: an annotation has nothing to score, or its mask does not fit its image.
        """
        if geometry not in self._prepared:
            self._prepared[geometry] = [self._prepare(annotation, geometry) for annotation in self._annotations]
        return self._prepared[geometry]

    def encode(self, segmentation: Any, image_id: int, where: str) -> dict[str, Any]:
        """Polygons or run lengths of an image → compressed run lengths as large as the image.

        Raises:
            DataError: it can't be read or is of another size; the message begins with `where`.
        """
        image = self.images[image_id]
        height, width = image.get("height"), image.get("width")
        try:
            if isinstance(segmentation, list):
                rle = rasterise(segmentation, (image["height"], image["width"]))
            else:
                rle = _held(segmentation)
            size = tuple(rle["size"])
        except Exception as error:
            raise DataError(f"{where}: the segmentation can't be read ({type(error).__name__}: {error})") from error
        if None not in (height, width) and size != (height, width):
            found, expected = f"{size[0]}x{size[1]}", f"{height}x{width}"
            raise DataError(f"{where}: the mask is {found} pixels, but image {image_id} is {expected}")
        return rle

    @property
    def max_instances(self) -> int:
        """The limit of detections that is usual for such annotations."""
        return LVIS_INSTANCES if self.federated else COCO_INSTANCES

    def lacks(self, image_id: int, category_id: int) -> bool:
        """Whether objects of the class were looked for in the image in vain."""
        return category_id in self._listed(image_id, "neg_category_ids")

    def excuses(self, image_id: int, category_id: int) -> bool:
        """Whether not all objects of the class were annotated in the image."""
        return category_id in self._listed(image_id, "not_exhaustive_category_ids")

    def _listed(self, image_id: int, key: str) -> Collection[int]:
        return self.images[image_id].get(key) or ()

    def _prepare(self, annotation: Mapping[str, Any], geometry: Geometry) -> dict[str, Any]:
        where = f"{self.path}, annotation {annotation['id']}"
        prepared = {key: annotation[key] for key in ("id", "image_id", "category_id")}
        # each tool has a word of its own for what is not counted, and does not know the other's
        prepared["iscrowd"] = 0 if self.federated else int(annotation.get("iscrowd") or 0)
        prepared["ignore"] = int(annotation.get("ignore") or 0) if self.federated else prepared["iscrowd"]
        area, box = annotation.get("area"), annotation.get("bbox")
        if geometry == "bbox" and box:
            return {**prepared, "bbox": box, "area": box[2] * box[3] if area is None else area}
        if not annotation.get("segmentation"):
            raise DataError(f"{where}: has no segmentation, and {geometry} results can't be scored without")
        rle = self.encode(annotation["segmentation"], annotation["image_id"], where)
        prepared |= {"segmentation": rle, "bbox": rle_codec.toBbox(rle).tolist()}
        return {**prepared, "area": float(rle_codec.area(rle)) if area is None else area}


def _held(segmentation: Mapping[str, Any]) -> dict[str, Any]:
    """Run lengths as pycocotools draws them, which looks at none of it.

    Raises:
        ValueError: they don't fill a mask of their size.
    """
    counts, (height, width) = segmentation["counts"], segmentation["size"]
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > LARGEST:
        raise ValueError(f"a mask of {height} x {width} pixels")
    read_runs(counts, (height, width))
    rle = {"size": [height, width], "counts": counts}
    return rle_codec.frPyObjects(rle, height, width) if isinstance(counts, list) else rle


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a COCO annotation json, but it can't be read: {error}") from error
    if not isinstance(content, dict):
        hint = "; are these results?" if isinstance(content, list) else ""
        found = type(content).__name__
        raise DataError(f"{path}: expected an object with images, annotations and categories, found a {found}{hint}")
    for name, kinds in KINDS.items():
        _check_records(path, name, content.get(name), kinds)
    if not content["images"] or not content["categories"]:
        raise DataError(f"{path}: lists no images or no categories, so there is nothing to score")
    return content


def _check_records(path: Path, name: str, records: Any, kinds: Mapping[str, Kind]) -> None:
    """Raise if `records` is no list of objects whose fields are of their kinds, with ids of their own."""
    keys = [key for key in kinds if key in REQUIRED]
    if not isinstance(records, list):
        raise DataError(f"{path}: expected a list under '{name}', found {type(records).__name__}")
    for index, record in enumerate(records):
        missing = [key for key in keys if not isinstance(record, dict) or key not in record]
        if missing:
            raise DataError(f"{path}, {name}[{index}]: lacks {', '.join(missing)}")
        for key, kind in kinds.items():
            value = record.get(key)
            if (value is not None or key in REQUIRED) and not kind.holds(value):
                raise DataError(f"{path}, {name}[{index}]: {key} is {value!r:.60}, expected {kind.words}")
    twice = [key for key, count in Counter(record["id"] for record in records).items() if count > 1]
    if twice:
        raise DataError(f"{path}: ids under '{name}' are not unique, {twice[0]} is there more than once")


def _class_names(categories: Collection[Mapping[str, Any]]) -> dict[int, str]:
    """Names by category id, ids ascending; where names are missing or shared, the id tells them apart."""
    names = Counter(category.get("name") for category in categories)
    classes = {}
    for category in sorted(categories, key=lambda category: category["id"]):
        name = category.get("name")
        unique = bool(name) and names[name] == 1
        classes[category["id"]] = str(name) if unique else f"{name or 'category'} ({category['id']})"
    return classes
