"""The embedded data set: drawn shapes in COCO's format, made once into the cache folder.

It shows within minutes that a method learns. With hue tied to class the semantics are nearly given, which favours
bottom-up methods: it ranks no paradigm.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from jaxtyping import UInt8
from rich.progress import Progress

from maskbench.atomic import appearing
from maskbench.data.cache import cache_folder
from maskbench.data.scene import SILHOUETTES, Draws, Look, Scene, paint
from maskbench.errors import ConfigError

VERSION = 1
"""Raised when the same settings draw other pixels; part of the folder's name."""
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shapes(Look):
    """Settings of a drawn data set: how its images look (`Look`), how many there are, and the seed.

    Args:
        images: images in the training split.
        val_images: images in the validation split, from a stream of their own.
        seed: first number of every stream.
    """

    images: int = 2000
    val_images: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        # A config hands over lists; a hash and a comparison need tuples.
        for name, kind in (("classes", str), ("objects", int), ("radius", float)):
            object.__setattr__(self, name, tuple(kind(value) for value in getattr(self, name)))
        for wrong in self._wrong():
            raise ConfigError(f"shapes can't be drawn: {wrong}")

    def _wrong(self) -> Iterator[str]:
        for name in ("images", "val_images", "size", "seed", "noise", "texture", "overlap", "empty", "visible"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int | float):
                yield f"{name} is a number, found {value!r}"
                return
        known = [name for name in SILHOUETTES if name in self.classes]
        if not known or len(known) < len(self.classes):
            yield f"classes are different ones out of {', '.join(SILHOUETTES)}, found {list(self.classes)}"
        if self.hue not in ("class", "any"):
            yield f"hue is `class` or `any`, found `{self.hue}`"
        if self.images < 1 or self.val_images < 1:
            yield f"each split needs an image, found images={self.images}, val_images={self.val_images}"
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1] <= 100:
            yield f"objects is [fewest, most] within 1 … 100, found {list(self.objects)}"
        if len(self.radius) != 2 or not 0 < self.radius[0] <= self.radius[1] <= 0.5:
            yield f"radius is [smallest, largest] within 0 … 0.5 of the side, found {list(self.radius)}"
        elif self.size * self.radius[0] < 3:
            yield f"the smallest radius is {self.size * self.radius[0]:.1f} px; raise size or radius to reach 3 px"
        if not 0 <= self.noise <= 128 or not 0 <= self.texture <= 255:
            yield f"noise lies in 0 … 128 and texture in 0 … 255, found {self.noise} and {self.texture}"
        for name in ("overlap", "empty", "visible"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name} is a share from 0 to 1, found {getattr(self, name)}"

    @property
    def digest(self) -> str:
        """Ten hexadecimal digits that name the settings."""
        text = json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def draw(*, cache: str | Path | None = None, **settings: Any) -> Path:
    """Draw the data set into `cache/shapes-DIGEST` unless it is there, and return that folder.

    It holds `images/*.png`, `annotations/instances_train.json` and `annotations/instances_val.json`. The folder
    appears whole or not at all: it is drawn beside its place and renamed, and of two processes the first one wins.

    Args:
        cache: parent folder (default: `$MASKBENCH_CACHE` or `~/.cache/maskbench`).
        settings: fields of `Shapes`; what is left out has the default given there.

    Raises:
        ConfigError: a setting is out of its range.
    """
    shapes = Shapes(**settings)
    folder = (Path(cache) if cache is not None else cache_folder()).expanduser() / f"shapes-{shapes.digest}"
    if folder.is_dir():
        return folder
    try:
        with appearing(folder) as unfinished:
            _draw_into(unfinished, shapes)
    except OSError:
        # Another process may have been faster; the same settings gave the same bytes.
        if not folder.is_dir():
            raise
    return folder


def _draw_into(folder: Path, shapes: Shapes) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    with Progress(transient=True) as progress:
        bar = progress.add_task("drawing shapes", total=shapes.images + shapes.val_images)
        for split, name in enumerate(SPLITS):
            records = _Records(shapes, split)
            for index in range(len(records)):
                scene = paint(shapes, Draws(shapes.seed, split, index), crowd=index == len(records) // 2)
                (folder / "images" / records.add(index, scene)).write_bytes(png(scene.image))
                progress.advance(bar)
            text = json.dumps(records.as_coco(), separators=(",", ":"), sort_keys=True)
            (folder / "annotations" / f"instances_{name}.json").write_text(text, encoding="utf-8")


class _Records:
    """The annotation file of one split. As in real data no kind of id starts at 1, and all have gaps."""

    def __init__(self, shapes: Shapes, split: int) -> None:
        self._shapes = shapes
        self._first = 17 + split * 3 * (shapes.images + 100)
        self._length = shapes.val_images if split else shapes.images
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self._length

    def add(self, index: int, scene: Scene) -> str:
        """Record an image with what is seen in it; returns its file name."""
        image_id = self._first + 3 * index
        file_name = f"{image_id:06d}.png"
        size = self._shapes.size
        self._images.append({"id": image_id, "file_name": file_name, "height": size, "width": size})
        for label, mask, crowd in zip(scene.labels, scene.masks, scene.crowds, strict=True):
            rle = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
            self._annotations.append(
                {
                    "id": 501 + 2 * len(self._annotations),
                    "image_id": image_id,
                    "category_id": _category_id(label),
                    "iscrowd": int(crowd),
                    "area": int(np.count_nonzero(mask)),
                    "bbox": rle_codec.toBbox(rle).tolist(),
                    "segmentation": _run_lengths(mask) if crowd else {**rle, "counts": rle["counts"].decode("ascii")},
                }
            )
        return file_name

    def as_coco(self) -> dict[str, Any]:
        categories = [{"id": _category_id(label), "name": name} for label, name in enumerate(self._shapes.classes)]
        info = {"description": "maskbench shapes", "version": str(VERSION), "settings": asdict(self._shapes)}
        return {"info": info, "images": self._images, "annotations": self._annotations, "categories": categories}


def _category_id(label: int) -> int:
    return 3 + 4 * label


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE, as COCO has it for crowds: lengths of runs down the columns, the first one of zeros."""
    flat = mask.ravel(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], borders, [flat.size]))).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def png(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """An RGB image as PNG without compression.

    Compressors differ between versions and builds; stored blocks are the same bytes everywhere, so that the data's
    fingerprint is, too. They are also the fastest to read, and noise would hardly shrink.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row starts with its filter: none
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows.tobytes())) + _chunk(b"IEND")


def _chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, RFC 1951 section 3.2.4)."""
    blocks = [data[start : start + 65535] for start in range(0, len(data), 65535)]
    stream = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    return b"\x78\x01" + stream + struct.pack(">I", zlib.adler32(data))
