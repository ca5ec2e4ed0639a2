"""A COCO folder from label maps, without the loss of a pixel: `python -m maskbench.data.labelmaps SOURCE OUT`.

A label map is an image of integers as large as its photo: one integer an instance, 0 where there is none. Three ways to
lay them out are told apart by what is there:

    CVPPP        PLANT_label.png beside PLANT_rgb.png, at any depth
    Cityscapes   NAME_gtFine_instanceIds.png and NAME_leftImg8bit.png, as they are unpacked
    folders      masks/NAME.png or .tif and images/NAME.png, .jpg, .tif, …, as microscopy has them

Folders `train`, `val` and `test` on the way to the label maps become splits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import Integer
from rich.console import Console
from rich.progress import track

from maskbench.data.coco import Record
from maskbench.data.folder import (
    Entry,
    Splits,
    arguments,
    as_annotation,
    require_new,
    require_share,
    share_out,
    splits_of,
    told,
    write_folder,
)
from maskbench.data.layouts import Role
from maskbench.data.photos import as_stored, opened, read_photo
from maskbench.errors import ConfigError, DataError, MaskbenchError

THINGS = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""The classes whose instances Cityscapes scores, by its own ids (Cordts et al., CVPR 2016)."""

UNSCORED = (29, 30)
"""Caravan and trailer: Cityscapes tells their instances apart, but scores none, and so they are left out."""

PHOTO = r"\.(?:bmp|jpe?g|p[gnp]m|png|tiff?|webp)"

Reading = Callable[[int], tuple[int, bool] | None]
"""What a value stands for: a category id and whether it is a crowd; None where it is no thing."""


@dataclass(frozen=True)
class Layout:
    """How a data set names its files.

    Args:
        name: of the layout.
        labels, photos: patterns of paths below the source; a label map and a photo whose groups agree belong together.
        example: where the photo of a label map is looked for, in words.
        values: what an instance is, in words.
        classes: names by category id; None where the label maps know no classes.
        read: what a value of a label map stands for.
    """

    name: str
    labels: str
    photos: str
    example: str
    values: str
    classes: Mapping[int, str] | None
    read: Reading


def _one_class(value: int) -> tuple[int, bool]:
    return 1, False


def _cityscapes(value: int) -> tuple[int, bool] | None:
    """1000 · class + instance; the class alone is stuff or, of things, a group that nobody took apart."""
    if value < 1000:
        return (value, True) if value in THINGS else None
    kind = value // 1000
    if kind not in THINGS and kind not in UNSCORED:
        raise ValueError(f"has the value {value}, an instance of class {kind}, which in Cityscapes has none")
    return (kind, False) if kind in THINGS else None


LAYOUTS = (
    Layout(
        name="CVPPP",
        labels=r"(.*)_label\.png",
        photos=rf"(.*)_rgb{PHOTO}",
        example="NAME_rgb.png beside NAME_label.png",
        values="1, 2, …",
        classes=None,
        read=_one_class,
    ),
    Layout(
        name="Cityscapes",
        labels=r"(?:.*/)?([^/]+?)(?:_gtFine|_gtCoarse)?_instanceIds\.png",
        photos=rf"(?:.*/)?([^/]+)_leftImg8bit{PHOTO}",
        example="NAME_leftImg8bit.png, wherever it lies, for NAME_gtFine_instanceIds.png",
        values="1000 · class + number",
        classes=THINGS,
        read=_cityscapes,
    ),
    Layout(
        name="folders",
        labels=r"(.*/|)masks/(.+)\.(?:png|tiff?)",
        photos=rf"(.*/|)images/(.+){PHOTO}",
        example="images/NAME.png (or .jpg, .tif, …) for masks/NAME.png (or .tif)",
        values="1, 2, …",
        classes=None,
        read=_one_class,
    ),
)


@dataclass(frozen=True)
class Pair:
    """A photo and its label map; `name` is what their names share, and `split` the folder of that name, if any."""

    name: str
    photo: Path
    labels: Path
    split: Role | None


@dataclass(frozen=True)
class Summary:
    """What was found and written.

    Attributes:
        layout: its name.
        splits: the photos of each.
        left_out: photos that have no label map.
    """

    layout: str
    splits: Splits
    left_out: Sequence[Path]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"label maps of the layout {self.layout}"
        yield from told(self.splits)
        if self.left_out:
            named, more = ", ".join(map(str, self.left_out[:3])), len(self.left_out) - 3
            yield f"left out, since they have no label map: {named}" + (f" and {more} more" if more > 0 else "")
        if max(entry.instances for entries in self.splits.values() for entry in entries) == 1:
            yield "no photo has more than one instance: are these masks of the foreground, whose objects share a value?"


def convert(source: Path, out: Path, *, category: str | None = None, val_share: float = 0.0) -> Summary:
    """Write `out/images` and `out/annotations/instances_SPLIT.json` from the label maps in `source`.

    Photos are copied byte by byte and called what they share with their label maps. An instance is all pixels of its
    value, in however many pieces they lie, as run lengths: polygons would lose pixels. The folder appears whole or not
    at all: it is written beside its place and renamed.

    Args:
        source: the folder of label maps and photos.
        out: the COCO folder; not there yet, or empty.
        category: what the instances are, where the label maps don't tell (default: `object`).
        val_share: share of `train`, 0 to below 1, that becomes `val`, by hash, where the source has no such folder.
            Without any folders of splits all photos are `train`.

    Raises:
        ConfigError: a setting is out of its range, or asks for what the source settles.
        DataError: the source can't be converted; the message names the file.
    """
    source, out = source.expanduser().resolve(), out.expanduser().resolve()
    require_new(out)
    layout, pairs, left_out = find(source)
    _check_settings(layout, pairs, category, val_share)
    entries = _entries(layout, pairs)
    if not any(entry.instances for entry in entries):
        raise DataError(
            f"{source}: no instance in any of {len(pairs)} label maps, such as {pairs[0].labels}; expected an integer "
            f"for each ({layout.values}) and 0 for the background: export them again"
        )
    splits = share_out(entries, val_share)
    write_folder(out, splits, layout.classes or {1: category or "object"}, f"{layout.name} label maps")
    return Summary(layout.name, splits, left_out)


# Finding --------------------------------------------------------------------------------------------------------------


def find(source: Path) -> tuple[Layout, list[Pair], list[Path]]:
    """The layout of a folder, its label maps with their photos by name, and the photos that have none.

    Raises:
        DataError: there are no label maps, or of two layouts; a label map has no photo, or two files claim one name;
            some lie in folders of splits and others don't.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the one that holds label maps and photos")
    paths = [path.relative_to(source) for path in sorted(source.rglob("*")) if not path.name.startswith(".")]
    found = [(layout, labels) for layout in LAYOUTS if (labels := _named(source, paths, layout.labels))]
    if len(found) != 1:
        seen = " and ".join(f"{layout.name} ({min(labels.values())})" for layout, labels in found) or "none"
        known = "; ".join(f"{layout.name}: {layout.example}" for layout in LAYOUTS)
        raise DataError(f"{source}: expected label maps of one layout ({known}), found {seen}; name the folder of one")
    ((layout, labels),) = found
    photos = _named(source, paths, layout.photos)
    for name, path in labels.items():
        if name not in photos:
            raise DataError(
                f"{source / path}: no photo for this label map among {len(photos)}; expected {layout.example}; add the "
                "photo, or take the label map away"
            )
    splits = zip(labels.items(), splits_of(list(labels.values())), strict=True)
    pairs = [Pair(name, source / photos[name], source / path, split) for (name, path), split in splits]
    return layout, pairs, [photos[name] for name in photos if name not in labels]


def _named(source: Path, paths: Iterable[Path], pattern: str) -> dict[str, Path]:
    """The paths that match, by what their groups say."""
    named: dict[str, Path] = {}
    for path in paths:
        if match := re.fullmatch(pattern, path.as_posix(), flags=re.IGNORECASE):
            name = "".join(match.groups())
            if name in named:
                raise DataError(
                    f"{source / path}: is called as {source / named[name]} is; expected one file of the name {name}, "
                    "take one of the two away"
                )
            named[name] = path
    return named


def _check_settings(layout: Layout, pairs: Sequence[Pair], category: str | None, val_share: float) -> None:
    require_share(val_share)
    if layout.classes and category is not None:
        raise ConfigError(
            f"category={category} is for label maps without classes, but those of {layout.name} have theirs"
        )
    own = [pair for pair in pairs if pair.split == "val"]
    if val_share and own:
        raise ConfigError(f"val_share={val_share} is for sources without a split val, but {own[0].labels} is of it")


# Reading --------------------------------------------------------------------------------------------------------------


def _entries(layout: Layout, pairs: Sequence[Pair]) -> list[Entry]:
    """Read the label maps, one after another; ids count from 1."""
    entries: list[Entry] = []
    first = 1
    shown = track(pairs, "reading label maps", console=Console(stderr=True), transient=True)
    for image_id, pair in enumerate(shown, 1):
        size = read_photo(pair.photo).shape[:2]
        annotations = _annotations(pair, size, layout.read)
        for annotation_id, annotation in enumerate(annotations, first):
            annotation |= {"id": annotation_id, "image_id": image_id}
        first += len(annotations)
        record = Record(image_id, pair.name + pair.photo.suffix, size)
        entries.append(Entry(record, annotations, pair.photo, pair.split))
    return entries


def _annotations(pair: Pair, size: tuple[int, int], read: Reading) -> list[dict[str, Any]]:
    """The objects of a label map as large as its photo."""
    labels = read_labels(pair.labels)
    if labels.shape != size:
        raise DataError(
            f"{pair.labels}: has {labels.shape[0]} x {labels.shape[1]} pixels (height x width), but its photo "
            f"{pair.photo} has {size[0]} x {size[1]}; export the label map at the photo's size"
        )
    annotations = []
    for value, rle in encode_values(labels).items():
        try:
            found = read(value)
        except ValueError as error:
            raise DataError(f"{pair.labels}: {error}; mend the value") from error
        if found:
            category_id, crowd = found
            annotations.append(as_annotation(rle, category_id, crowd=crowd))
    return annotations


def read_labels(path: Path) -> Integer[np.ndarray, "H W"]:
    """The integers of a label map; of a palette its places, since colours only show them.

    Raises:
        DataError: the file can't be read, or is no single image of integers from 0 on.
    """
    try:
        with opened(path) as image:
            mode, pages, labels = image.mode, getattr(image, "n_frames", 1), np.array(as_stored(image)[0])
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise what damaged bytes lead them to, of many kinds
        raise DataError(f"{path}: is no label map that can be read ({error}); export it again") from error
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or pages > 1:
        found = f"{pages} images" if pages > 1 else f"pixels of the kind {mode}"
        raise DataError(
            f"{path}: holds {found}, expected one image with one channel of 8, 16 or 32-bit integers; export the "
            "numbers of the instances, not their colours"
        )
    if labels.min() < 0:
        raise DataError(f"{path}: has the value {labels.min()}, expected 0 for the background and more for instances")
    return labels


def encode_values(labels: Integer[np.ndarray, "H W"]) -> dict[int, dict[str, Any]]:
    """Compressed run lengths of each value but 0, ascending, from one pass over the pixels, however many there are."""
    flat = labels.ravel(order="F")
    begins = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
    ends = np.append(begins[1:], flat.size)
    order = np.argsort(flat[begins], kind="stable")
    values, firsts = np.unique(flat[begins][order], return_index=True)
    encoded = {}
    for value, runs in zip(values.tolist(), np.split(order, firsts[1:]), strict=True):
        if value:
            borders = np.stack([begins[runs], ends[runs]], axis=1).ravel()
            counts = np.diff(borders, prepend=0, append=flat.size).tolist()
            encoded[value] = rle_codec.frPyObjects({"size": list(labels.shape), "counts": counts}, *labels.shape)
    return encoded


def main() -> None:
    """Convert what the command line names, and say what was found."""
    parser = arguments(
        "python -m maskbench.data.labelmaps",
        "Make a COCO folder from label maps: images in which each instance has an integer of its own.",
        "Layouts: " + "; ".join(f"{layout.name}, whose photos are {layout.example}" for layout in LAYOUTS) + ".",
    )
    parser.add_argument("--category", metavar="NAME", help="what the instances are (default: object)")
    given = parser.parse_args()
    try:
        print(convert(given.source, given.out, category=given.category, val_share=given.val_share))
    except MaskbenchError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
