"""A picture for each method of a study: its way from a photo to instances.

    python docs/stages.py study=runs/nuclei photo=$DSB2018/images/NAME.png credit="2018 Data Science Bowl, CC0"
        [out=docs/methods/pictures] [score=0.3]

The first finished seed of every method looks at the photo. `METHOD.png` shows what its network says and what becomes of
that, up to the instances whose score is at least that of the run's deployment point (or `score`); an object has one
colour from panel to panel. `README.md` beside the pictures says of what they were made. The last line is JSON.
`docs/drawing` holds a function for each method, which a new one needs as well, and what they draw with.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import track

from drawing.bottom_up import centre_offset, discriminative, flow_field, semantic, spatial_embedding
from drawing.hybrid import hybrid
from drawing.one_stage import decoupled_solo, solo, solov2
from drawing.panels import NO_BREAK, Ground, Panel, picture, save
from drawing.seen import Seen, by
from drawing.two_stage import cascade_mask_rcnn, htc, mask_rcnn, point_rend
from maskbench.data.datamodule import photo_batch
from maskbench.data.photos import read_photo
from maskbench.data.transforms import Photo, Transforms
from maskbench.errors import ConfigError, MaskbenchError, RunError
from maskbench.methods.base import Segmenter
from maskbench.methods.cascade_mask_rcnn import CascadeMaskRCNN
from maskbench.methods.centre_offset import CentreOffset
from maskbench.methods.decoupled_solo import DecoupledSOLO
from maskbench.methods.discriminative import Discriminative
from maskbench.methods.flow_field import FlowField
from maskbench.methods.htc import HTC
from maskbench.methods.hybrid import Hybrid
from maskbench.methods.mask_rcnn import MaskRCNN
from maskbench.methods.point_rend import PointRend
from maskbench.methods.semantic import Semantic
from maskbench.methods.solo import SOLO
from maskbench.methods.solov2 import SOLOv2
from maskbench.methods.spatial_embedding import SpatialEmbedding
from maskbench.runtime.compose import make
from maskbench.runtime.console import console
from maskbench.runtime.environment import commit
from maskbench.runtime.pictures import SCORE
from maskbench.runtime.run_folder import load_method
from maskbench.study.runs import Run, read_runs


@torch.inference_mode()
def see(method: Segmenter, photo: Photo, transforms: Transforms, divisor: int, score: float) -> tuple[Any, Seen]:
    """What the network says of a photo, RGB bytes [H W 3], and the instances that the method finds."""
    batch = photo_batch({1: photo}, transforms, divisor=divisor)
    raw = method(method.prepare(batch))
    (found,) = method.instances(raw, batch.frames)
    height, width = batch.images.shape[2:]
    return raw, Seen(Ground(photo, batch.frames[0], (height, width)), found[found.scores >= score], score)


@torch.inference_mode()
def look(method: Segmenter, raw: Any, seen: Seen) -> list[Panel]:
    """The panels from photo to instances.

    Raises:
        ConfigError: nobody has said what the stages of this method are.
    """
    if type(method) not in WAYS:
        known = ", ".join(sorted(own.__name__ for own in WAYS))
        raise ConfigError(f"{type(method).__name__} has no panels in docs/stages.py (WAYS), which knows {known}")
    score = f"score{NO_BREAK}≥{NO_BREAK}{seen.score:.2f}"
    return [
        Panel(f"photo, {by(*seen.frame.resized)} pixels of the network input", [seen.ground.photo]),
        *WAYS[type(method)](method, raw, seen),
        Panel(f"instances, {score}: {len(seen.found)}", [seen.ground.objects(seen.found)]),
    ]


WAYS: dict[type[Segmenter], Callable[[Any, Any, Seen], Iterator[Panel]]] = {
    MaskRCNN: mask_rcnn,
    CascadeMaskRCNN: cascade_mask_rcnn,
    HTC: htc,
    PointRend: point_rend,
    SOLO: solo,
    DecoupledSOLO: decoupled_solo,
    SOLOv2: solov2,
    Semantic: semantic,
    Discriminative: discriminative,
    CentreOffset: centre_offset,
    FlowField: flow_field,
    SpatialEmbedding: spatial_embedding,
    Hybrid: hybrid,
}
"""What a method shows between photo and instances."""


@dataclass
class Settings:
    """What is asked for; without a score that of each run's deployment point counts, or that of its thumbnails."""

    study: Path = MISSING
    photo: Path = MISSING
    out: Path = Path("docs/methods/pictures")
    score: float | None = None
    credit: str = "its licence is not said"


def settings(arguments: Sequence[str]) -> Settings:
    """Of `name=value`.

    Raises:
        ConfigError: that is not what was given.
    """
    try:
        given = OmegaConf.merge(OmegaConf.structured(Settings), OmegaConf.from_dotlist(list(arguments)))
        return cast(Settings, OmegaConf.to_object(given))
    except OmegaConfBaseException as error:
        expected = "study=FOLDER photo=FILE [out=FOLDER] [score=0.3] [credit=TEXT]"
        reason = str(error).splitlines()[0]
        raise ConfigError(f"stages.py {' '.join(arguments)}: {reason} (expected {expected})") from error


def first_seeds(study: Path) -> dict[str, Run]:
    """The first finished run of each method, by the name of the method's file.

    Raises:
        RunError: there is none.
    """
    found: dict[str, Run] = {}
    for run in read_runs(study):
        if run.state == "done" and not run.guest:
            found.setdefault(run.config.method._target_.split(".")[-2], run)
    if not found:
        raise RunError(f"{study}: no run in it is finished; `make sweep` again goes on with what there is")
    return found


def write(run: Run, photo: Photo, score: float | None, path: Path) -> int:
    """The picture of a run; returns its bytes."""
    trained = load_method(run.folder)
    lowest = run.metrics.get("deployment", {}).get("threshold", SCORE) if score is None else score
    raw, seen = see(trained.method, photo, make(trained.cfg.transforms), trained.cfg.data.divisor, lowest)
    return save(picture(look(trained.method, raw, seen), seen.ground), path).stat().st_size


def origin(chosen: Settings, runs: Mapping[str, Run]) -> str:
    """Of what the pictures were made, without the paths of this machine."""
    command = f"python docs/stages.py study=runs/{chosen.study.name} photo={chosen.photo.name}"
    lines = [
        "# Of what these pictures were made",
        f"```bash\n{command}{'' if chosen.score is None else f' score={chosen.score}'}\n```",
        f"Drawn at commit `{commit()}`. The photo: {chosen.credit}.",
        "| picture | run | trained at commit |\n| :-- | :-- | :-- |",
    ]
    for name, run in runs.items():
        trained = run.keys["environment"].fields.get("commit") if "environment" in run.keys else None
        lines[-1] += f"\n| [{name}]({name}.png) | {run.name} | `{trained}` |"
    return "\n\n".join(lines) + "\n"


def main() -> None:
    try:
        chosen = settings(sys.argv[1:])
        photo, runs = read_photo(chosen.photo), first_seeds(chosen.study)
        sizes = {
            name: write(run, photo, chosen.score, chosen.out / f"{name}.png")
            for name, run in track(runs.items(), "drawing", console=console, transient=True)
        }
    except MaskbenchError as error:
        sys.exit(str(error))
    (chosen.out / "README.md").write_text(origin(chosen, runs), encoding="utf-8")
    print(json.dumps({"out": str(chosen.out), "bytes": sizes}))


if __name__ == "__main__":
    main()
