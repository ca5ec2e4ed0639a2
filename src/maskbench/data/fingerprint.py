"""What a data set contains, as one short number: of the files' bytes, not of where they lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from maskbench.data.cache import cache_folder, recall, remember
from maskbench.data.coco import CocoFile, missing_annotations, stored
from maskbench.data.semantic import open_maps
from maskbench.errors import DataError

SLOW = 2**28
"""Bytes from which reading them is worth a progress bar."""


def fingerprint(root: str | Path, files: Iterable[str | Path]) -> str:
    """Sixteen hexadecimal digits of the files' contents, in the order given.

    The contents are read once; afterwards a file counts as unchanged while its size and modification time are.

    Args:
        root: folder that the files are relative to.
        files: annotation files and images.

    Raises:
        DataError: a file is missing.
    """
    root = Path(root).resolve()
    names = [os.fspath(name) for name in files]
    states = [_state(root, name) for name in names]
    key = hashlib.sha256(
        "\n".join([str(root), *(f"{name} {state}" for name, state in zip(names, states, strict=True))]).encode()
    )
    known = cache_folder() / "fingerprints" / f"{key.hexdigest()[:32]}.json"
    found = recall(known)
    if not isinstance(found, str):
        found = _read([stored(root, name) for name in names], sum(size for size, _ in states))
        remember(known, found)
    return found


def list_files(root: Path, splits: Sequence[tuple[str, str, CocoFile]], semantic: str | None = None) -> list[str]:
    """The files of a data set, each once: per split its annotation file, then its images by image id.

    Args:
        root: folder of the data set.
        splits: of each split the annotation file's name and the image folder, relative to `root`, and the file as it
            was read; the first is what is trained on.
        semantic: maps of stuff and things, relative to `root`, if there are any.
    """
    names: dict[str, None] = {}
    for name, images, file in splits:
        names[name] = None
        names.update(dict.fromkeys(f"{images}/{record.file_name}" for record in file.records.values()))
    if semantic is not None:
        maps = open_maps(root / semantic)
        described = [maps.path] if maps.path.is_file() else []
        files = [*described, *maps.files(splits[0][2].records.values())]
        names.update(dict.fromkeys(os.path.relpath(path, root) for path in files))
    return list(names)


def _state(root: Path, name: str) -> tuple[int, int]:
    try:
        found = os.stat(stored(root, name))
    except OSError as error:
        path = root / name
        if path.suffix == ".json":
            raise DataError(missing_annotations(path)) from error
        raise DataError(
            f"{path}: no such image ({error.strerror}), but an annotation file names it; check the image folder "
            "(data.train_images, data.test_images) or remove its record"
        ) from error
    return found.st_size, found.st_mtime_ns


def _read(paths: Sequence[Path], total: int) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        contents = pool.map(_digest, paths)
        for each in track(contents, "reading the data set once", len(paths), transient=True, disable=total < SLOW):
            digest.update(each)
    return digest.hexdigest()[:16]


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
