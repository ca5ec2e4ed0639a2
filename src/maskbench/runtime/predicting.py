"""Photos in, overlays and COCO results out: one at a time, so that memory holds one photo."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.progress import track

from maskbench.data.coco import read_photo
from maskbench.data.datamodule import photo_batch
from maskbench.data.transforms import Photo, Transforms
from maskbench.errors import DataError
from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.results import coco_results, write_predictions
from maskbench.runtime.compose import make
from maskbench.runtime.console import console
from maskbench.runtime.overlays import draw, readable, save
from maskbench.runtime.run_folder import Trained
from maskbench.runtime.timing import pick_device
from maskbench.structures import Frame, Instances


@dataclass
class Segmented:
    """What became of some photos: overlays written, instances found and drawn, and why a file could not be read."""

    overlays: list[Path] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    drawn: int = 0
    broken: dict[Path, str] = field(default_factory=dict)

    @property
    def instances(self) -> int:
        return len(self.results)

    @property
    def highest_score(self) -> float | None:
        return max((result["score"] for result in self.results), default=None)


def find_photos(images: str) -> list[Path]:
    """The files of a folder, of a glob, or the one file, by name.

    Raises:
        DataError: there is none.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    suffixes = frozenset(Image.registered_extensions())
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
    if not found:
        raise DataError(f"{images}: no photo there (expected an image file, a folder with some, or a glob in quotes)")
    return sorted(found)


def segment(trained: Trained, photos: Sequence[Path], out: Path, *, score: float, device: str | None) -> Segmented:
    """Segment photos with a trained method; writes `out/NAME.png` for each and `out/predictions.json`.

    The results are COCO's, with the name of the file, below the folder that all photos share, beside its running number
    as `image_id`. Whoever interrupts it keeps what is done.

    Args:
        trained: the method.
        photos: image files.
        out: where the pictures go.
        score: instances below it are not drawn.
        device: a GPU where there is one when None.
    """
    target = pick_device(device)
    trained.method.to(target)
    found, names = Segmented(), _names(photos)
    pictures, transforms = _pictures(out, names), make(trained.cfg.transforms)
    shown = track(photos, "segmenting", console=console, transient=True, disable=not console.is_terminal)
    try:
        for image_id, path in enumerate(shown, start=1):
            try:
                photo = read_photo(path)
            except DataError as error:
                found.broken[path] = str(error)
                continue
            instances = _segment(trained, transforms, photo, image_id, target)
            certain = instances[instances.scores >= score]
            picture = draw(photo, certain, trained.method.classes, zoom=readable(photo))
            found.drawn += len(certain)
            found.overlays.append(save(picture, pictures[path]))
            frame, named = Frame(image_id, photo.shape[:2], photo.shape[:2]), {"file_name": names[path].as_posix()}
            found.results += [result | named for result in coco_results(instances, frame, trained.category_ids)]
    finally:
        if found.overlays:
            write_predictions(out / "predictions.json", found.results)
    return found


def _segment(trained: Trained, transforms: Transforms, photo: Photo, image_id: int, device: torch.device) -> Instances:
    """As the run's AP was measured."""
    batch = photo_batch({image_id: photo}, transforms, divisor=trained.cfg.data.divisor).to(device)
    with torch.inference_mode(), autocast(device, trained.cfg.trainer.precision):
        return trained.method.predict(batch)[0].to("cpu")


def _names(photos: Sequence[Path]) -> dict[Path, Path]:
    """Each photo's path below the folder that all of them share."""
    common = os.path.commonpath([photo.absolute().parent for photo in photos])
    return {photo: photo.absolute().relative_to(common) for photo in photos}


def _pictures(out: Path, names: Mapping[Path, Path]) -> dict[Path, Path]:
    """Where the overlay of each photo goes: `STEM.png`, or `NAME.png` where photos share a stem; never onto a photo."""
    stems = Counter(name.with_suffix("") for name in names.values())
    taken = {photo.resolve() for photo in names}
    named = {
        photo: out / name.with_name(f"{name.stem if stems[name.with_suffix('')] == 1 else name.name}.png")
        for photo, name in names.items()
    }
    return {
        photo: path.with_stem(f"{path.stem}-overlay") if path.resolve() in taken else path
        for photo, path in named.items()
    }
