"""Which images of which files the splits of a data set are; without torch, for those who only count them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskbench.data.coco import CocoFile, read_file
from maskbench.data.fingerprint import fingerprint, list_files
from maskbench.data.groups import Grouping
from maskbench.data.layouts import Place, Places
from maskbench.data.split import first, take_apart
from maskbench.errors import DataError

Split = Literal["train", "tune", "test"]


@dataclass(frozen=True)
class Part:
    """One split: its annotation file, its folder of images, and which of the file's images belong to it, ascending."""

    file: CocoFile
    images: Path
    image_ids: tuple[int, ...]


def read_parts(
    root: Path,
    places: Places,
    *,
    tune_share: float,
    grouping: Grouping | None = None,
    limit: int | None = None,
    eval_limit: int | None = None,
) -> Mapping[Split, Part]:
    """Read the annotation files and share their images out.

    Args:
        root: the data set's folder.
        places: where the splits lie.
        tune_share: share of the training images that are for tuning, where tune has no file of its own.
        grouping: what tells the images apart of which none is in two splits.
        limit: training images used.
        eval_limit: images of tune and of test used, each.

    Raises:
        DataError: a file is missing or broken, or at odds with another; there is nothing to test or to learn.
    """
    files = {name: read_file(root / name, grouping) for name in {name for name, _ in places.files()}}
    split = take_apart(
        files[places.train.annotations].records.values(),
        tune_share=0.0 if places.tune else tune_share,
        test_share=places.test_share,
        limit=limit,
    )

    def part(place: Place, image_ids: Sequence[int] | None, limit: int | None = None) -> Part:
        """Of the images of a file (None: of all) so many as the limit allows."""
        file = files[place.annotations]
        known = [file.records[image_id] for image_id in (file.records if image_ids is None else image_ids)]
        return Part(file, root / place.images, tuple(first(known, limit)))

    parts: dict[Split, Part] = {
        "train": part(places.train, split.train),
        "tune": part(places.tune or places.train, None if places.tune else split.tune, eval_limit),
        "test": part(places.test, split.test if places.test_share else None, eval_limit),
    }
    _check(parts)
    if places.test_share or places.test.annotations != places.train.annotations:  # or they are meant to be the same
        _check_groups(parts)
    return parts


def fingerprint_of(root: Path, places: Places, parts: Mapping[Split, Part], semantic: str | None = None) -> str:
    """The fingerprint of all annotation files, images and maps of a data set, wherever they lie.

    Args:
        root: the data set's folder.
        places: where the splits lie.
        parts: the splits, read.
        semantic: maps of stuff and things, relative to `root`, if there are any.

    Raises:
        DataError: an image or a map is missing.
    """
    files = {part.file.path: part.file for part in parts.values()}
    splits = [(name, images, files[root / name]) for name, images in places.files()]
    return fingerprint(root, list_files(root, splits, semantic))


def _check(parts: Mapping[Split, Part]) -> None:
    """Raise `DataError` where splits contradict each other, or leave nothing to test or to learn."""
    train = parts["train"].file
    for part in parts.values():
        _check_categories(part.file, train)
    if not parts["test"].image_ids:
        raise DataError(
            f"{train.path}: none of its {len(train)} photos can be set apart for testing: there is one alone, or all "
            "are of one group (data.group_by); group them by something else, or set data.test_annotations"
        )
    if not any(train.counts(image_id)[0] for image_id in train.records) and any(
        train.counts(image_id)[1] for image_id in train.records
    ):
        raise DataError(
            f"{train.path}: each of its annotations has `iscrowd`: 1, so that none is an object to learn or to find; "
            "CVAT marks every mask so that is no polygon. Set `iscrowd` to 0 where a mask is one object (in CVAT: the "
            "label's attribute is_crowd)"
        )


def _check_groups(parts: Mapping[Split, Part]) -> None:
    """Raise `DataError` where a group has photos in two splits, as it may where these are files of their own."""
    seen: dict[str, tuple[Split, str]] = {}
    for split, part in parts.items():
        for record in (part.file.records[image_id] for image_id in part.image_ids):
            if record.group is None:
                continue
            other, name = seen.setdefault(record.group, (split, record.file_name))
            if other != split:
                raise DataError(
                    f"{part.file.path}: the group `{record.group}` (data.group_by) has photos in {other}, such as "
                    f"{name}, and in {split}, such as {record.file_name}; keep its photos in one file, or join the "
                    "files and set data.test_share"
                )


def _check_categories(file: CocoFile, train: CocoFile) -> None:
    """Every category of a split is one that the method learns, under the same name."""
    for category_id, name in file.categories.items():
        learnt = train.categories.get(category_id)
        if learnt != name:
            raise DataError(
                f"{file.path}: category {category_id} is `{name}`, but in {train.path} it is "
                f"{'missing' if learnt is None else f'`{learnt}`'}; both files need the same ids and names"
            )
