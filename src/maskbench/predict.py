"""Segment photos of any size: `python -m maskbench.predict run=DIR images=PATH`, a folder, a glob or one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from maskbench.errors import DataError
from maskbench.runtime import verb
from maskbench.runtime.console import complain, say
from maskbench.runtime.run_folder import RunFolder
from maskbench.runtime.values import require, require_one

if TYPE_CHECKING:  # it imports torch, which takes seconds: what is wrong with the settings is said before
    from maskbench.runtime.album import Album

VALUES: dict[str, Any] = {
    **dict.fromkeys(("run", "weights", "device"), str | None),
    **dict.fromkeys(("images", "out"), str),
    "compare": Sequence[str] | None,
    "save": Sequence[str],
    "score": float,
}
WAYS = {
    "run": "run=DIR",
    "weights": "weights=FILE as convert made it",
    "compare": "compare=[DIR,FILE,...]",
}


def predict(cfg: DictConfig) -> dict[str, Any]:
    """Write overlays, COCO results and label maps of photos; a file that can't be read is named and left out.

    Raises:
        ConfigError: not one way is chosen to say what segments, or there is nothing of a kind to save.
        RunError, WeightsError: a run or a file of weights is none.
        DataError: no photo could be read.
    """
    require(cfg, VALUES)
    require_one(cfg, WAYS, "segment with")
    if cfg.run:
        RunFolder.existing(cfg.run)  # asked here, before seconds of imports
    from maskbench.runtime.album import Output
    from maskbench.runtime.predicting import find_photos, load, segment, titles

    output = Output(Path(cfg.out), cfg.score, tuple(cfg.save), compared=bool(cfg.compare))
    photos = find_photos(cfg.images)
    if cfg.compare:
        methods = {title: load(source) for title, source in zip(titles(cfg.compare), cfg.compare, strict=True)}
    else:
        methods = {"": load(cfg.run or cfg.weights)}
    album, broken = segment(methods, photos, output, device=cfg.device)
    for reason in broken.values():
        complain(reason)
    if not album.done:
        raise DataError(f"{cfg.images}: none of {len(photos)} files is a photo that can be read")
    _tell(album, len(photos))
    counts = {
        title: {"instances": len(found.results), "certain": found.certain} for title, found in album.found.items()
    }
    return {
        "out": cfg.out,
        "images": len(album.done),
        **({"methods": counts} if cfg.compare else counts[""]),
        "broken": {str(path): reason for path, reason in broken.items()},
    }


def _tell(album: Album, photos: int) -> None:
    """What was written, and what a person who looks at it should know."""
    from maskbench.runtime.album import RESULTS

    score, shows = album.output.score, {"overlays", "label_maps"} & set(album.output.kinds)
    for title, found in album.found.items():
        if not found.certain and shows:
            highest = (
                "nothing was found" if found.highest_score is None else f"the highest is {found.highest_score:.2f}"
            )
            whose = f"{title}: no" if title else "No"
            complain(f"{whose} score reaches {score}, so that nothing is drawn: {highest}. score=... sets another.")
    if album.turned:
        say(
            f"{_few(album.turned)}: turned by EXIF. Overlays are upright; the network sees the stored pixels, "
            "as training does, and results and label maps are in them."
        )
    if album.stretched:
        brightest = max(album.stretched.values())
        say(
            f"{_few(list(album.stretched))}: 16 bits. Overlays show them stretched; the network sees 8 bits, "
            f"as training does, here at most {brightest} of 255."
        )
    written = {"overlays": "overlays", "results": RESULTS, "label_maps": "label maps"}
    of = f" of {photos}" if len(album.done) < photos else ""
    kinds = [name for kind, name in written.items() if kind in album.output.kinds]
    say(f"{len(album.done)}{of} photos: {', '.join(kinds)} in {album.output.folder}")


def _few(paths: Sequence[Path]) -> str:
    """The first of some files, and how many there are."""
    return str(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def main() -> None:
    verb.run("predict", predict)


if __name__ == "__main__":
    main()
