"""A COCO folder from the Semantic Boundaries Dataset: `python -m maskbench.data.sbd SOURCE OUT`.

SBD (Hariharan et al., ICCV 2011) has 11,355 photos of PASCAL VOC 2011 with an instance map each, in MATLAB's files:
`dataset/img/ID.jpg`, `dataset/inst/ID.mat`, and the ids of its splits in `dataset/train.txt` and `dataset/val.txt`.
These splits are its own: some of its training photos are in VOC 2012 val.
"""

from __future__ import annotations

import argparse
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from maskbench.data.coco import Record
from maskbench.data.folder import Entry, Splits, as_annotation, require_new, share_out, told, write_folder
from maskbench.data.labelmaps import encode_values
from maskbench.data.layouts import Role
from maskbench.data.photos import read_photo
from maskbench.errors import ConfigError, DataError, MaskbenchError

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""VOC's classes, whose numbers count from 1."""


def convert(source: Path, out: Path) -> Splits:
    """Write `out/images` and `out/annotations/instances_{train,val}.json`, pixel by pixel; returns what was written.

    Args:
        source: SBD as it is unpacked (`benchmark_RELEASE`), or its folder `dataset`.
        out: the COCO folder; not there yet, or empty.

    Raises:
        ConfigError: scipy, which reads MATLAB's files, is not installed.
        DataError: the source can't be converted; the message names the file.
    """
    source, out = source.expanduser().resolve(), out.expanduser().resolve()
    require_new(out)
    folder = source / "dataset" if (source / "dataset").is_dir() else source
    if not (folder / "inst").is_dir() or not (folder / "img").is_dir():
        raise DataError(f"{source}: expected dataset/img and dataset/inst, as SBD is unpacked; name that folder")
    splits: tuple[Role, ...] = ("train", "val")
    listed = [(name, split) for split in splits for name in _listed(folder / f"{split}.txt")]
    numbers = count(1)
    entries: list[Entry] = []
    shown = track(listed, "reading instance maps", console=Console(stderr=True), transient=True)
    for image_id, (name, split) in enumerate(shown, 1):
        photo = folder / "img" / f"{name}.jpg"
        height, width = read_photo(photo).shape[:2]
        annotations = _annotations(folder / "inst" / f"{name}.mat", (height, width))
        found = [{"id": next(numbers), "image_id": image_id, **each} for each in annotations]
        entries.append(Entry(Record(image_id, photo.name, (height, width)), found, photo, split))
    written = share_out(entries, 0.0)
    write_folder(out, written, dict(enumerate(CLASSES, 1)), "Semantic Boundaries Dataset")
    return written


def _listed(path: Path) -> list[str]:
    """The ids of a split."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); SBD lists the ids of its splits there") from error
    if not names:
        raise DataError(f"{path}: is empty; SBD lists the ids of a split there, one a line")
    return names


def _annotations(path: Path, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The objects of an instance map."""
    labels, classes = _read(path)
    if labels.shape != size:
        raise DataError(
            f"{path}: has {' x '.join(map(str, labels.shape))} pixels (height x width), but its photo has "
            f"{size[0]} x {size[1]}; unpack SBD again"
        )
    annotations = []
    for value, rle in encode_values(labels).items():
        kind = int(classes[value - 1]) if value <= len(classes) else 0
        if not 1 <= kind <= len(CLASSES):
            raise DataError(f"{path}: instance {value} has no class from 1 to {len(CLASSES)}; unpack SBD again")
        annotations.append(as_annotation(rle, kind))
    return annotations


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The instance map (H W, 0 where there is none) and the class of each instance."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError("SBD's files are MATLAB's, which scipy reads: pip install 'maskbench[sbd]'") from error
    try:
        truth = loadmat(path)["GTinst"][0, 0]
        return np.asarray(truth["Segmentation"]).astype(np.int32), np.asarray(truth["Categories"]).ravel()
    except Exception as error:  # scipy's own errors have no common base
        raise DataError(
            f"{path}: is no instance map of SBD ({type(error).__name__}: {error}); expected MATLAB's `GTinst` with "
            "Segmentation and Categories"
        ) from error


def main() -> None:
    """Convert what the command line names, and say what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m maskbench.data.sbd", description="Make a COCO folder from the Semantic Boundaries Dataset."
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="benchmark_RELEASE, as SBD is unpacked")
    parser.add_argument("out", metavar="OUT", type=Path, help="the COCO folder, new or empty")
    given = parser.parse_args()
    try:
        print("\n".join(told(convert(given.source, given.out))))
    except MaskbenchError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
