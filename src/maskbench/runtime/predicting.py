"""Photos in, what methods find in them out: one at a time, so that memory holds one photo."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from rich.progress import track

from maskbench.data.datamodule import photo_batch
from maskbench.data.photos import read_photo
from maskbench.data.transforms import Photo, Transforms
from maskbench.errors import ConfigError, DataError, WeightsError
from maskbench.evaluation.autocast import autocast
from maskbench.runtime.album import Album, Output
from maskbench.runtime.compose import make
from maskbench.runtime.console import console
from maskbench.runtime.published import load_weights
from maskbench.runtime.run_folder import Trained, load_method
from maskbench.runtime.timing import pick_device
from maskbench.structures import Instances
from maskbench.sweep.identity import parse_trial_name


def find_photos(images: str) -> list[Path]:
    """The photos of a folder, of a glob, or the one file, by name; of a glob others where none is one.

    Raises:
        DataError: there is none.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _photos(path.iterdir())
        if not found and _photos(path.rglob("*")):
            raise DataError(f"{images}: no photo there, but in its folders: say \"images='{images.rstrip('/')}/**/*'\"")
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()]
        found = _photos(files) or files
    if not found:
        raise DataError(f"{images}: no photo there (expected an image file, a folder with some, or a glob in quotes)")
    return sorted(found)


def _photos(files: Iterable[Path]) -> list[Path]:
    """Those of the files that are named as images are."""
    suffixes = frozenset(Image.registered_extensions())
    return [file for file in files if file.suffix.lower() in suffixes and not file.name.startswith(".")]


def load(source: str) -> Trained:
    """The method of a run folder, or of a converted checkpoint: a file, or the name of one that is published.

    Raises:
        RunError: as in `load_method`.
        WeightsError: there is neither, or as in `load_method` and `load_weights`.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return load_method(path)
    if not path.exists() and not source.startswith("torchvision/"):
        raise WeightsError(f"{source}: no such file or folder; expected a run folder or a file of weights")
    return load_weights(source)


def titles(sources: Sequence[str]) -> list[str]:
    """What runs and files of weights are called beside each other: by their methods, or by what tells them apart.

    Raises:
        ConfigError: one is there twice.
    """
    paths = [Path(source).expanduser().absolute() for source in sources]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"compare=[{', '.join(sources)}]: expected each run or file once")
    trials = [parse_trial_name(path.name) for path in paths]
    stems = [path.stem if path.suffix == ".safetensors" else path.name for path in paths]
    choices = (
        [trial.method if trial else stem for trial, stem in zip(trials, stems, strict=True)],
        [f"{trial.method} seed {trial.seed}" if trial else stem for trial, stem in zip(trials, stems, strict=True)],
        stems,
        [f"{path.parent.name} {path.name}" for path in paths],
    )
    for names in choices:
        if len(set(names)) == len(names):
            return names
    return [f"{number} {stem}" for number, stem in enumerate(stems, start=1)]


def segment(
    methods: Mapping[str, Trained], photos: Sequence[Path], output: Output, *, device: str | None
) -> tuple[Album, dict[Path, str]]:
    """Segment photos with trained methods, and write what is asked for.

    Results are COCO's, with the name of the file, below the folder that all photos share, beside its running number as
    `image_id`. Whoever interrupts it keeps what is done.

    Args:
        methods: by the names that they are shown under.
        photos: image files.
        output: what is written, and where to.
        device: a GPU where there is one when None.

    Returns:
        What was written, and why a file could not be read.
    """
    target = pick_device(device)
    for trained in methods.values():
        trained.method.to(target)
    transforms = {name: make(trained.cfg.transforms) for name, trained in methods.items()}
    album, broken = Album(output, methods, photos), {}
    shown = track(photos, "segmenting", console=console, transient=True, disable=not console.is_terminal)
    try:
        for image_id, path in enumerate(shown, start=1):
            try:
                photo = read_photo(path)
            except DataError as error:
                broken[path] = str(error)
                continue
            found = {
                name: _segment(trained, transforms[name], photo, image_id, target) for name, trained in methods.items()
            }
            album.add(path, image_id, photo, found)
    finally:
        album.close()
    return album, broken


def _segment(trained: Trained, transforms: Transforms, photo: Photo, image_id: int, device: torch.device) -> Instances:
    """As the run's AP was measured."""
    batch = photo_batch({image_id: photo}, transforms, divisor=trained.cfg.data.divisor).to(device)
    with torch.inference_mode(), autocast(device, trained.cfg.trainer.precision):
        return trained.method.predict(batch)[0].to("cpu")
