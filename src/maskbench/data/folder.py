"""A COCO folder as the converters write it: `images/`, and `annotations/instances_SPLIT.json` for each split."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, get_args

import pycocotools.mask as rle_codec

from maskbench.atomic import appearing
from maskbench.data.coco import Record
from maskbench.data.layouts import Role
from maskbench.data.split import split_off
from maskbench.errors import ConfigError, DataError

SPLITS: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Entry:
    """A photo as the annotation file has it, with its objects.

    Args:
        record: of the annotation file.
        annotations: likewise, with their ids.
        photo: the file, which is copied byte by byte, or what makes the bytes of one.
        split: the one that the source names; None where it names none.
    """

    record: Record
    annotations: list[dict[str, Any]]
    photo: Path | Callable[[], bytes]
    split: Role | None

    @property
    def instances(self) -> int:
        return sum(not annotation["iscrowd"] for annotation in self.annotations)

    @property
    def crowds(self) -> int:
        return len(self.annotations) - self.instances


Splits = Mapping[Role, Sequence[Entry]]


def as_annotation(rle: dict[str, Any], category_id: int, *, crowd: bool = False) -> dict[str, Any]:
    """An object as the annotation file has it, but for its ids, from compressed run lengths."""
    return {
        "category_id": category_id,
        "iscrowd": int(crowd),
        "area": int(rle_codec.area(rle)),
        "bbox": rle_codec.toBbox(rle).tolist(),
        "segmentation": {**rle, "counts": rle["counts"].decode("ascii")},
    }


def require_new(out: Path) -> None:
    """Raise `DataError` where something is there already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is there already and not empty; name a new folder, or remove it")


def require_share(val_share: float) -> None:
    """Raise `ConfigError` where it is none."""
    if not 0 <= val_share < 1:
        raise ConfigError(f"val_share is a share of the photos from 0 to below 1, found {val_share}")


def splits_of(paths: Sequence[PurePath]) -> list[Role | None]:
    """The folder `train`, `val` or `test` on the way to each file, or None for all where there are no such folders.

    Raises:
        DataError: some files lie in such folders and others don't.
    """
    found = [next((split for part in path.parent.parts for split in SPLITS if part == split), None) for path in paths]
    apart = [path for path, split in zip(paths, found, strict=True) if split is None]
    if apart and len(apart) < len(paths):
        raise DataError(f"{apart[0]}: lies in no folder train, val or test, but others do; move it into one of them")
    return found


def share_out(entries: Sequence[Entry], val_share: float) -> dict[Role, list[Entry]]:
    """The photos of each split that has some: `train` where none is named, of which a share becomes `val`, by hash."""
    named: list[Role] = [entry.split or "train" for entry in entries]
    train = [entry.record for entry, split in zip(entries, named, strict=True) if split == "train"]
    kept_apart = set(split_off(train, val_share)[1])
    splits: dict[Role, list[Entry]] = {}
    for entry, split in zip(entries, named, strict=True):
        splits.setdefault("val" if entry.record.image_id in kept_apart else split, []).append(entry)
    return {split: splits[split] for split in SPLITS if split in splits}


def annotation_file(split: Role) -> str:
    """Where the annotations of a split lie in a COCO folder."""
    return f"annotations/instances_{split}.json"


def write_folder(out: Path, splits: Splits, classes: Mapping[int, str], description: str) -> None:
    """Write the folder. It appears whole or not at all: it is written beside its place and renamed.

    Args:
        out: not there yet, or empty.
        splits: the photos of each.
        classes: names by category id.
        description: of the annotation files.

    Raises:
        StorageError: the disk is full, or the folder can't be written to.
    """
    with appearing(out) as unfinished:
        for entries in splits.values():
            for entry in entries:
                _put(entry.photo, unfinished / "images" / entry.record.file_name)
        (unfinished / "annotations").mkdir()
        for split, entries in splits.items():
            text = json.dumps(_content(entries, classes, description), separators=(",", ":"))
            (unfinished / annotation_file(split)).write_text(text, encoding="utf-8")


def _put(photo: Path | Callable[[], bytes], copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(photo, Path):
        shutil.copyfile(photo, copy)
    else:
        copy.write_bytes(photo())


def _content(entries: Sequence[Entry], classes: Mapping[int, str], description: str) -> dict[str, Any]:
    records = [entry.record for entry in entries]
    return {
        "info": {"description": description},
        "images": [
            {"id": record.image_id, "file_name": record.file_name, "height": record.size[0], "width": record.size[1]}
            for record in records
        ],
        "annotations": [annotation for entry in entries for annotation in entry.annotations],
        "categories": [{"id": category_id, "name": name} for category_id, name in classes.items()],
    }


def told(splits: Splits) -> Iterator[str]:
    """What was written, a line a split, and what to do where nothing is for testing."""
    for split, entries in splits.items():
        instances, crowds = sum(entry.instances for entry in entries), sum(entry.crowds for entry in entries)
        yield f"{annotation_file(split)}: {len(entries)} photos, {instances} instances, {crowds} crowds"
    if "val" not in splits and "test" not in splits:
        yield (
            "there is neither val nor test, which are reported: --val-share 0.2 takes val from train, and so does "
            "data.test_share=0.2 when it is read"
        )


def arguments(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """A parser of what all converters are told: SOURCE, OUT and --val-share."""
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=epilog)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the folder to convert")
    parser.add_argument("out", metavar="OUT", type=Path, help="the COCO folder, new or empty")
    parser.add_argument(
        "--val-share",
        metavar="SHARE",
        type=float,
        default=0.0,
        help="share of the training photos that become val where SOURCE has no folder val (default: 0)",
    )
    return parser
