"""What is written of photos that were segmented, and where to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Literal, get_args

from jaxtyping import Bool
from torch import Tensor

from maskbench.data.photos import UPRIGHT
from maskbench.data.transforms import Photo
from maskbench.errors import ConfigError
from maskbench.evaluation.results import Result, coco_results, write_predictions
from maskbench.runtime import label_maps
from maskbench.runtime.colours import Colours
from maskbench.runtime.display import display
from maskbench.runtime.overlays import draw, readable, save
from maskbench.runtime.run_folder import Trained
from maskbench.runtime.side_by_side import side_by_side
from maskbench.structures import Frame, Instances

Kind = Literal["overlays", "results", "label_maps"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What can be written of a photo."""

RESULTS, LABEL_MAPS = "predictions.json", "label_maps"


@dataclass(frozen=True)
class Output:
    """What is written of photos, and where to.

    Of one method it is `NAME.png`, `predictions.json` and `label_maps/NAME.png` with its table; of several that are
    compared `NAME.png` shows all of them, and each has its results and label maps in a folder of its name.

    Args:
        folder: where to.
        score: instances below it are neither drawn nor in label maps; results hold them all.
        kinds: some of `KINDS`.
        compared: whether methods stand side by side.

    Raises:
        ConfigError: no kind is named, or one that there is not.
    """

    folder: Path
    score: float = 0.5
    kinds: Collection[str] = ("overlays", "results")
    compared: bool = False

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(f"save=[{', '.join(map(str, unknown))}]: expected some of {', '.join(KINDS)}")

    def of(self, method: str) -> Path:
        """Where results and label maps of a method go."""
        return self.folder / method if self.compared else self.folder


@dataclass
class Found:
    """What a method found in all photos: its results, and how many instances reach the score."""

    results: list[Result] = field(default_factory=list)
    certain: int = 0

    @property
    def highest_score(self) -> float | None:
        return max((result["score"] for result in self.results), default=None)


class Album:
    """Photos and what methods find in them, written one by one.

    Args:
        output: what is written, and where to.
        methods: by the names that they are shown under.
        photos: image files.

    Attributes:
        found: by method.
        done: the photos that were added.
        turned: those whose overlay is turned as EXIF says.
        stretched: those that are shown with other pixels than the network sees, and the brightest that it sees, of 255.
    """

    def __init__(self, output: Output, methods: Mapping[str, Trained], photos: Sequence[Path]) -> None:
        self.output, self.methods = output, methods
        self.found = {name: Found() for name in methods}
        self.done: list[Path] = []
        self.turned: list[Path] = []
        self.stretched: dict[Path, int] = {}
        self._names = _names(photos)
        self._pictures = _places(output.folder, self._names, photos)
        taken = [*photos, *self._pictures.values()]
        self._maps = {name: _places(output.of(name) / LABEL_MAPS, self._names, taken) for name in methods}

    def add(self, path: Path, image_id: int, photo: Photo, found: Mapping[str, Instances]) -> None:
        """Write what methods found in a photo; their results are written by `close`."""
        frame = Frame(image_id, (photo.shape[0], photo.shape[1]), (photo.shape[0], photo.shape[1]))
        certain = {name: instances.scores >= self.output.score for name, instances in found.items()}
        for name, instances in found.items():
            trained, own = self.methods[name], self.found[name]
            named = {"file_name": self._names[path].as_posix()}
            own.results += [result | named for result in coco_results(instances, frame, trained.category_ids)]
            own.certain += int(certain[name].sum())
            if "label_maps" in self.output.kinds:
                kept = instances[certain[name]]
                label_maps.write(self._maps[name][path], kept, trained.method.classes, trained.category_ids)
        if "overlays" in self.output.kinds:
            self._draw(path, photo, found, certain)
        self.done.append(path)

    def close(self) -> None:
        """Write the results of all photos that were added."""
        if "results" in self.output.kinds and self.done:
            for name, own in self.found.items():
                write_predictions(self.output.of(name) / RESULTS, own.results)

    def _draw(
        self, path: Path, photo: Photo, found: Mapping[str, Instances], certain: Mapping[str, Bool[Tensor, " N"]]
    ) -> None:
        shown, colours, panels = display(path, photo), Colours(), {}
        if shown.orientation != UPRIGHT:
            self.turned.append(path)
        if shown.stretched:
            self.stretched[path] = int(photo.max())
        drawn = partial(draw, shown.photo, zoom=readable(photo), orientation=shown.orientation)
        if self.output.compared:
            panels[self._names[path].name, ""] = drawn(Instances.empty(photo.shape[:2]))
        for name, instances in found.items():
            # all have a colour, so that it is the same at every score
            kept = list(compress(colours.of(instances), certain[name].tolist()))
            classes = self.methods[name].method.classes
            count = f"{len(kept)} instance{'s' * (len(kept) != 1)}"
            panels[name, count] = drawn(instances[certain[name]], classes=classes, colours=kept)
        picture = side_by_side(panels) if self.output.compared else next(iter(panels.values()))
        save(picture, self._pictures[path])


def _names(photos: Sequence[Path]) -> dict[Path, Path]:
    """Each photo's path below the folder that all of them share."""
    common = os.path.commonpath([photo.absolute().parent for photo in photos])
    return {photo: photo.absolute().relative_to(common) for photo in photos}


def _places(folder: Path, names: Mapping[Path, Path], taken: Collection[Path]) -> dict[Path, Path]:
    """Where a picture of each photo goes: `STEM.png`, `NAME.png` where stems are equal; never onto what is taken."""
    stems = Counter(name.with_suffix("") for name in names.values())
    others = {path.resolve() for path in taken}
    places = {
        photo: folder / name.with_name(f"{name.stem if stems[name.with_suffix('')] == 1 else name.name}.png")
        for photo, name in names.items()
    }
    return {
        photo: path.with_stem(f"{path.stem}-overlay") if path.resolve() in others else path
        for photo, path in places.items()
    }
