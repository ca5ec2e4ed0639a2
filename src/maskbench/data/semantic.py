"""Maps of stuff and things beside the instances: a class for each pixel, where a data set has them.

A map holds class + 1, and 0 where nobody knows, so that whatever a transform fills in is unknown.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from maskbench.data.coco import Record, stored, wrong_name
from maskbench.errors import DataError, MaskbenchError

UNKNOWN = 255
"""In the files of COCO-stuff: no class."""

Map = UInt16[np.ndarray, "H W"]


class SemanticMaps(ABC):
    """The maps of a data set; a photo without one is unknown altogether.

    Args:
        path: of the folder or json.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def file(self, record: Record) -> Path | None:
        """The PNG of a photo; None where it has none."""

    @abstractmethod
    def read(self, pixels: np.ndarray, record: Record) -> Map:
        """What the stored pixels stand for."""

    def __call__(self, record: Record) -> Map:
        """The map of a photo, as large as it.

        Raises:
            DataError: the file can't be read or has another size.
        """
        path = self.file(record)
        if path is None:
            return np.zeros(record.size, np.uint16)
        try:
            with Image.open(path, formats=["PNG"]) as image:
                if (image.height, image.width) != record.size:
                    raise self._misfit(path, (image.height, image.width), record)
                pixels = np.array(image)
        except (MaskbenchError, MemoryError):
            raise
        except Exception as error:  # PIL's readers raise what damaged bytes lead them to, of many kinds
            raise DataError(f"{path}: is no map that can be read ({error}); replace it or leave it out") from error
        return self.read(pixels, record)

    @staticmethod
    def _misfit(path: Path, size: tuple[int, int], record: Record) -> DataError:
        return DataError(
            f"{path}: has {size[0]} x {size[1]} pixels (height x width), but its photo {record.file_name} has "
            f"{record.size[0]} x {record.size[1]}; export the maps again"
        )

    def files(self, records: Iterable[Record]) -> list[Path]:
        """What the maps of some photos are read from.

        Raises:
            DataError: none of the photos has one.
        """
        found = [path for record in records if (path := self.file(record)) is not None]
        if not found:
            raise DataError(
                f"{self.path}: holds no map of any photo; expected a folder with STEM.png for each photo, or a "
                "panoptic json with its PNGs in the folder of the same name beside it"
            )
        return found


class LabelMaps(SemanticMaps):
    """A folder of one-channel PNGs named as their photos, whose pixels are classes and 255 is unknown (COCO-stuff)."""

    def file(self, record: Record) -> Path | None:
        path = stored(self.path, PurePosixPath(record.file_name).with_suffix(".png").as_posix())
        return path if path.is_file() else None

    def read(self, pixels: np.ndarray, record: Record) -> Map:
        if pixels.ndim != 2 or pixels.dtype != np.uint8:
            raise DataError(
                f"{self.file(record)}: has pixels {pixels.dtype}{list(pixels.shape[2:])}, expected one channel of 8 "
                "bits, a class or 255"
            )
        return np.where(pixels == UNKNOWN, 0, pixels.astype(np.uint16) + 1).astype(np.uint16)


class Panoptic(SemanticMaps):
    """COCO's panoptic json, and its PNGs in the folder of the same name; classes are its categories by id."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            content = json.loads(path.read_bytes())
            ids = sorted(category["id"] for category in content["categories"])
            classes = {category_id: label for label, category_id in enumerate(ids)}
            self._annotations = {
                annotation["image_id"]: (
                    annotation["file_name"],
                    {segment["id"]: classes[segment["category_id"]] for segment in annotation["segments_info"]},
                )
                for annotation in content["annotations"]
            }
            climbing = [name for name, _ in self._annotations.values() if wrong_name(name)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{path}: is no panoptic json ({type(error).__name__}: {error}); expected COCO's, with categories, and "
                "annotations of image_id, file_name and segments_info"
            ) from error
        if climbing:
            raise DataError(f"{path}: names the file {climbing[0]!r:.80}, which lies not in the folder beside it")
        if len(classes) > UNKNOWN:
            raise DataError(f"{path}: has {len(classes)} categories, expected at most {UNKNOWN}")

    def file(self, record: Record) -> Path | None:
        found = self._annotations.get(record.image_id)
        return None if found is None else stored(self.path.with_suffix(""), found[0])

    def read(self, pixels: np.ndarray, record: Record) -> Map:
        name, segments = self._annotations[record.image_id]
        if pixels.ndim != 3 or pixels.shape[2] < 3:
            raise DataError(f"{self.path.with_suffix('') / name}: has one channel, expected red, green and blue")
        ids = pixels[..., :3].astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
        known, where = np.unique(ids, return_inverse=True)
        classes = np.array([segments.get(int(each), -1) + 1 for each in known], np.uint16)
        return classes[where].reshape(ids.shape)


def open_maps(path: Path) -> SemanticMaps:
    """The maps in a folder of label maps or of a panoptic json.

    Raises:
        DataError: there is neither.
    """
    if path.is_dir():
        return LabelMaps(path)
    if path.suffix == ".json":
        return Panoptic(path)
    raise DataError(f"{path}: no such folder of maps (data.train_semantic names a folder of PNGs or a panoptic json)")
