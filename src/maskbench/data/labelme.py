"""A COCO folder from labelme's files: `python -m maskbench.data.labelme SOURCE OUT`.

labelme writes NAME.json for each photo, with its shapes and, unless it was told not to, the photo itself. Shapes of one
label and one `group_id` are one instance. Folders `train`, `val` and `test` on the way to the files become splits.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from maskbench.data.coco import Record
from maskbench.data.folder import (
    Entry,
    Splits,
    arguments,
    require_new,
    require_share,
    share_out,
    splits_of,
    told,
    write_folder,
)
from maskbench.data.layouts import Role
from maskbench.data.photos import UPRIGHT, Size, loaded, opened, stored_size
from maskbench.data.runs import UNDRAWABLE
from maskbench.errors import ConfigError, DataError, MaskbenchError
from maskbench.ops.polygons import REACH, rasterise

NO_CLASS = ("__ignore__", "_background_")
"""Labels that stand for no class in labelme's own label lists."""

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""PIL's words for pixels that a PNG can have, too."""

FAR = 2.0**53
"""Coordinates below it can be reckoned with; who draws them tells of those that are far outside of a photo."""

NO_AREA = ("line", "linestrip", "point", "points")
"""Shapes that enclose nothing."""


@dataclass(frozen=True)
class Summary:
    """What was written, and how many shapes were left out, by what they are."""

    splits: Splits
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from told(self.splits)
        if self.left_out:
            yield "left out: " + ", ".join(f"{count} x {what}" for what, count in sorted(self.left_out.items()))


@dataclass(frozen=True)
class _File:
    """A file of labelme; `name` is its path below the source without the suffix."""

    path: Path
    name: str
    split: Role | None

    def read(self) -> dict[str, Any]:
        """Its content.

        Raises:
            DataError: it is no file of labelme.
        """
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise self.error(f"is no json that can be read ({error})", "save it again in labelme") from error
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise self.error("has no list `shapes`, so it is none of labelme's files", "take it out of the folder")
        return content

    def error(self, found: str, remedy: str) -> DataError:
        return DataError(f"{self.path}: {found}; {remedy}")


def convert(source: Path, out: Path, *, val_share: float = 0.0) -> Summary:
    """Write `out/images` and `out/annotations/instances_SPLIT.json` from the files of labelme in `source`.

    A photo is copied byte by byte from where `imagePath` says, or else taken from `imageData`, and called as its json.
    labelme turns photos as their EXIF tag says before it shows them, and so a turned one is written turned, as a PNG.
    Polygons stay polygons, rectangles and circles become some; an instance with a painted mask becomes run lengths. The
    classes are the labels in alphabetical order. Shapes that enclose nothing (lines, points) are left out and counted.

    Args:
        source: the folder of the json files, and of the photos where these are not within.
        out: the COCO folder; not there yet, or empty.
        val_share: share of `train`, 0 to below 1, that becomes `val`, by hash, where the source has no such folder.

    Raises:
        ConfigError: a setting is out of its range, or asks for what the source settles.
        DataError: the source can't be converted; the message names the file.
    """
    source, out = source.expanduser().resolve(), out.expanduser().resolve()
    require_new(out)
    require_share(val_share)
    files = _files(source)
    if val_share and any(file.split == "val" for file in files):
        raise ConfigError(f"val_share={val_share} is for sources without a folder val, but {source} has one")
    left_out: Counter[str] = Counter()
    shown = track(files, "reading labelme's files", console=Console(stderr=True), transient=True)
    drawings = [_drawing(file, left_out) for file in shown]
    labels = sorted({label for drawing in drawings for label, _ in drawing.objects})
    if not labels:
        raise DataError(f"{source}: no shape with an area in any of {len(files)} files, such as {files[0].path}")
    splits = share_out(_entries(drawings, labels), val_share)
    write_folder(out, splits, dict(enumerate(labels, 1)), "labelme")
    return Summary(splits, left_out)


def _files(source: Path) -> list[_File]:
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the one that holds labelme's json files")
    paths = [path.relative_to(source) for path in sorted(source.rglob("*.json")) if not path.name.startswith(".")]
    if not paths:
        raise DataError(f"{source}: holds no json file; name the folder that labelme has saved to")
    splits = zip(paths, splits_of(paths), strict=True)
    return [_File(source / path, path.with_suffix("").as_posix(), split) for path, split in splits]


def _entries(drawings: Sequence[_Drawing], labels: Sequence[str]) -> list[Entry]:
    """As the annotation files have them; ids count from 1."""
    entries: list[Entry] = []
    numbers = count(1)
    for image_id, drawing in enumerate(drawings, 1):
        annotations = [
            {"id": next(numbers), "image_id": image_id, "category_id": labels.index(label) + 1, "iscrowd": 0, **shape}
            for label, shape in drawing.objects
        ]
        record = Record(image_id, drawing.file.name + drawing.photo.suffix, drawing.photo.size)
        entries.append(Entry(record, annotations, drawing.photo.source, drawing.file.split))
    return entries


# Reading --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Photo:
    """What shapes were drawn on: a file, or what makes the bytes of one; its suffix, and its size."""

    source: Path | Callable[[], bytes]
    suffix: str
    size: Size


@dataclass(frozen=True)
class _Drawing:
    """A file of labelme with its photo, and of each of its objects the label and `segmentation`, `area` and `bbox`."""

    file: _File
    photo: _Photo
    objects: list[tuple[str, dict[str, Any]]]


def _drawing(file: _File, left_out: Counter[str]) -> _Drawing:
    content = file.read()
    photo = _photo(file, content)
    said = [content.get("imageHeight"), content.get("imageWidth")]
    if None not in said and said != list(photo.size):
        raise file.error(
            f"says that its photo has {said[0]} x {said[1]} pixels (height x width), but it has {photo.size[0]} x "
            f"{photo.size[1]}",
            "put back the photo that was drawn on",
        )
    parts: dict[tuple[str, Any], list[Drawn]] = {}
    for place, shape in enumerate(content["shapes"]):
        label, kind, points = _checked(file, place, shape)
        if label in NO_CLASS or kind in NO_AREA:
            left_out[label if label in NO_CLASS else kind] += 1
            continue
        group = shape.get("group_id")
        if not isinstance(group, int | float | str | None):
            raise file.error(f"shapes[{place}] has the group_id {group!r:.60}, expected a number", "mend or remove it")
        own = ("alone", place) if group is None else ("group", group)
        parts.setdefault((label, own), []).append(_part(file, place, shape, kind, points, photo.size))
    objects = [(label, _as_coco(file, label, own, photo.size)) for (label, _), own in parts.items()]
    visible = [(label, found) for label, found in objects if found["area"]]
    if len(visible) < len(objects):
        left_out["shape without a pixel"] += len(objects) - len(visible)
    return _Drawing(file, photo, visible)


def _photo(file: _File, content: Mapping[str, Any]) -> _Photo:
    """The photo as labelme has shown it: the file if it is there and not turned, else what is within."""
    name, data = content.get("imagePath"), content.get("imageData")
    path = file.path.parent / PureWindowsPath(name).as_posix() if isinstance(name, str) and name else None
    if path is not None and path.is_file():
        image, told = _opened(file, path, f"its photo {path}")
        with image:
            if told == UPRIGHT:
                return _Photo(path, path.suffix, (image.height, image.width))
            if not data:
                turned = ImageOps.exif_transpose(image)
                return _Photo(partial(_turned, path), ".png", (turned.height, turned.width))
    if not isinstance(data, str) or not data:
        raise file.error(
            f"its photo is neither at imagePath ({name}) nor within (imageData)", "put the photo where imagePath says"
        )
    with _opened(file, io.BytesIO(_decoded(file, data)), "the photo within")[0] as image:
        suffix = {"JPEG": ".jpg"}.get(str(image.format), f".{str(image.format).lower()}")
        return _Photo(lambda: _decoded(file, file.read()["imageData"]), suffix, stored_size(image))


def _opened(file: _File, source: Path | io.BytesIO, what: str) -> tuple[Image.Image, int]:
    """An image whose pixels can be read, which turns TIFFs, and EXIF's orientation of those that are stored."""
    try:
        image = opened(source)
        told = loaded(image)
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise what damaged bytes lead them to, of many kinds
        raise file.error(f"{what} can't be read ({error})", "replace it") from error
    return image, told


def _turned(path: Path) -> bytes:
    with opened(path) as image, io.BytesIO() as buffer:
        upright = ImageOps.exif_transpose(image)
        (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(buffer, "PNG")
        return buffer.getvalue()


def _decoded(file: _File, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise file.error(f"holds an image that is no base64 ({error})", "save it again in labelme") from error


# Shapes ---------------------------------------------------------------------------------------------------------------

Drawn = list[float] | dict[str, Any]
"""A polygon x, y, x, y, … in pixels, or the run lengths of a mask as large as the photo."""


def _checked(file: _File, place: int, shape: Any) -> tuple[str, str, list[list[float]]]:
    """Label, kind and points of a shape."""
    found = shape if isinstance(shape, dict) else {}
    label, kind, points = found.get("label"), found.get("shape_type") or "polygon", found.get("points")
    if not isinstance(label, str) or not isinstance(points, list) or not all(map(_is_point, points)):
        raise file.error(
            f"shapes[{place}] is {shape!r:.80}, expected a `label` and `points` [[x, y], …]", "mend or remove it"
        )
    return label, str(kind), points


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < FAR


def _part(file: _File, place: int, shape: dict[str, Any], kind: str, points: list[list[float]], size: Size) -> Drawn:
    """A shape as COCO has it."""
    least = {"polygon": 3, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}.get(kind)
    if least is None:
        raise file.error(f"shapes[{place}] is a {kind}, which is not known", "draw it as a polygon")
    if len(points) < least:
        raise file.error(f"shapes[{place}], a {kind}, has {len(points)} points, expected {least}", "mend or remove it")
    if kind == "mask":
        return _painted(file, place, shape, points, size)
    (x, y), (u, v) = points[:2]
    if kind == "rectangle":
        return [x, y, u, y, u, v, x, v]
    if kind == "circle":
        radius = math.hypot(u - x, v - y)
        if radius > REACH * sum(size):
            found = f"has a radius of {radius:.6g}, but the photo has {size[0]} x {size[1]} pixels"
            raise file.error(f"shapes[{place}], a circle, {found}", "mend or remove it")
        points_around = max(12, math.ceil(2 * math.pi * radius))  # one a pixel
        angles = np.linspace(0, 2 * math.pi, points_around, endpoint=False)
        return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).ravel().tolist()
    return [value for point in points for value in point]


def _painted(file: _File, place: int, shape: dict[str, Any], points: list[list[float]], size: Size) -> dict[str, Any]:
    """The PNG of a mask, whose first point says where its upper left corner lies."""
    text = shape.get("mask")
    if not isinstance(text, str):
        raise file.error(f"shapes[{place}] is a mask without a `mask`", "mend or remove it")
    with _opened(file, io.BytesIO(_decoded(file, text)), f"the mask of shapes[{place}]")[0] as image:
        patch = np.asarray(image.convert("L")) > 0
    left, top = (round(value) for value in points[0])
    mask = np.zeros(size, np.uint8, order="F")
    rows, columns = slice(max(0, top), max(0, top + len(patch))), slice(max(0, left), max(0, left + patch.shape[1]))
    window = mask[rows, columns]
    window[:] = patch[rows.start - top :, columns.start - left :][: window.shape[0], : window.shape[1]]
    return rle_codec.encode(mask)


def _as_coco(file: _File, label: str, parts: Sequence[Drawn], size: Size) -> dict[str, Any]:
    """The parts of an object as one segmentation: polygons, or run lengths where one is painted."""
    polygons = [part for part in parts if isinstance(part, list)]
    painted = [part for part in parts if isinstance(part, dict)]
    try:
        rle = rle_codec.merge([*painted, *([rasterise(polygons, size)] if polygons else [])])
    except UNDRAWABLE as error:
        raise file.error(f"an object `{label}` can't be drawn: {error}", "mend or remove it") from error
    segmentation = {**rle, "counts": rle["counts"].decode("ascii")} if painted else polygons
    return {"segmentation": segmentation, "area": int(rle_codec.area(rle)), "bbox": rle_codec.toBbox(rle).tolist()}


def main() -> None:
    """Convert what the command line names, and say what was found."""
    parser = arguments(
        "python -m maskbench.data.labelme",
        "Make a COCO folder from labelme's files: a json for each photo, with polygons, rectangles, circles and masks.",
    )
    given = parser.parse_args()
    try:
        print(convert(given.source, given.out, val_share=given.val_share))
    except MaskbenchError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
