"""What became of each detection: all that precision, recall and their intervals are computed from.

D detections   G truths   S strata   T IoU thresholds
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from maskbench.atomic import replacing
from maskbench.errors import DataError

FILE = "matches.npz"
"""Where a run folder has them."""

MOST = 2**32
"""Bytes of the matches of a run, unpacked: ten times those of LVIS's."""

_NAMES = ("images", "classes", "names", "strata")


@dataclass(frozen=True)
class Matches:
    """What became of each detection, and how many truths there were: all that a curve of precision needs.

    Attributes:
        images, classes, names, strata: what the indices below stand for.
        image, label, score, rank: of each detection, by class and descending score, equal scores in the images' order;
            `rank` is its place in its image and class.
        right: by stratum and threshold, whether it finds a truth that counts.
        wrong: whether it finds nothing and is blamed for it. What is neither is not counted at all.
        overlap: with what it finds at the lowest threshold, of all strata the first; 0 if it finds nothing.
        truth_image, truth_label: of each truth.
        counted: the strata that a truth belongs to.
    """

    images: tuple[int, ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]
    strata: tuple[str, ...]
    image: Int64[np.ndarray, " D"]
    label: Int64[np.ndarray, " D"]
    score: Float[np.ndarray, " D"]
    rank: Int64[np.ndarray, " D"]
    right: Bool[np.ndarray, "D S T"]
    wrong: Bool[np.ndarray, "D S T"]
    overlap: Float[np.ndarray, " D"]
    truth_image: Int64[np.ndarray, " G"]
    truth_label: Int64[np.ndarray, " G"]
    counted: Bool[np.ndarray, "G S"]

    def of_class(self, label: int) -> slice:
        """The rows of the detections of a class."""
        begin, end = np.searchsorted(self.label, [label, label + 1])
        return slice(int(begin), int(end))


def write_matches(path: str | Path, matches: Matches) -> None:
    """Write matches as a compressed npz: whole or not at all."""
    columns = {field.name: np.asarray(getattr(matches, field.name)) for field in fields(Matches)}
    flags = {name: column for name, column in columns.items() if column.dtype == bool}
    packed: dict[str, Any] = {name: np.packbits(column) for name, column in flags.items()}
    packed |= {f"{name}.shape": np.array(column.shape) for name, column in flags.items()}
    with replacing(Path(path)) as part, part.open("wb") as file:
        np.savez_compressed(file, **{**columns, **packed})


def read_matches(path: str | Path) -> Matches:
    """Read what `write_matches` wrote.

    Raises:
        DataError: the file can't be read or is none of ours.
    """
    try:
        _require_size(Path(path))
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            columns = {field.name: _column(file, field.name) for field in fields(Matches)}
            _require_fit(columns)
            return Matches(**columns)
    except MemoryError:
        raise
    except Exception as error:  # zip, zlib and numpy raise errors of their own on a damaged file
        raise DataError(
            f"{path}: expected the matches of a run, but it can't be read ({type(error).__name__}: {error}): "
            "`maskbench evaluate run=DIR` writes it anew"
        ) from error


def _require_size(path: Path) -> None:
    """Raise for an archive that a few bytes make larger than any study's."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MOST:
        raise ValueError(f"it unpacks to {unpacked} bytes, expected at most {MOST}")


def _require_fit(columns: Mapping[str, Any]) -> None:
    """Raise unless all are of one length by what they are about, and point at what there is."""
    detections, truths, strata = len(columns["image"]), len(columns["truth_image"]), len(columns["strata"])
    thresholds = columns["right"].shape[-1]
    shapes = {
        **dict.fromkeys(("image", "label", "score", "rank", "overlap"), (detections,)),
        **dict.fromkeys(("right", "wrong"), (detections, strata, thresholds)),
        **dict.fromkeys(("truth_image", "truth_label"), (truths,)),
        "counted": (truths, strata),
    }
    for name, shape in shapes.items():
        if columns[name].shape != shape:
            raise ValueError(f"{name} is of shape {columns[name].shape}, expected {shape}")
    for name, among in (
        ("image", "images"),
        ("label", "classes"),
        ("truth_image", "images"),
        ("truth_label", "classes"),
    ):
        if not ((columns[name] >= 0) & (columns[name] < len(columns[among]))).all():
            raise ValueError(f"{name} points beyond {len(columns[among])} {among}")


def _column(file: Mapping[str, np.ndarray], name: str) -> Any:
    column = file[name]
    if f"{name}.shape" in file:
        shape = tuple(file[f"{name}.shape"].tolist())
        if not all(side >= 0 for side in shape) or math.prod(shape) > 8 * column.size:
            raise ValueError(f"{name} has {column.size} bytes, which are not {shape}")
        return np.unpackbits(column, count=int(np.prod(shape))).reshape(shape).astype(bool)
    return tuple(column.tolist()) if name in _NAMES else column
