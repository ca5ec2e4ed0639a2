"""Segment photos of any size: `python -m maskbench.predict run=DIR images=PATH`, a folder, a glob or one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.errors import ConfigError, DataError
from maskbench.runtime import verb
from maskbench.runtime.console import complain, say


def predict(cfg: DictConfig) -> dict[str, Any]:
    """Write an overlay for each photo and the COCO results of all; a file that can't be read is named and left out.

    Raises:
        DataError: no photo could be read.
    """
    if (cfg.run is None) == (cfg.weights is None):
        raise ConfigError("name what is to segment: either run=DIR, or weights=FILE as convert made it")
    from maskbench.runtime.predicting import find_photos, segment
    from maskbench.runtime.published import load_weights
    from maskbench.runtime.run_folder import load_method

    photos = find_photos(cfg.images)
    trained = load_method(cfg.run) if cfg.run else load_weights(cfg.weights)
    found = segment(trained, photos, Path(cfg.out), score=cfg.score, device=cfg.device)
    for reason in found.broken.values():
        complain(reason)
    if len(found.broken) == len(photos):
        raise DataError(f"{cfg.images}: none of {len(photos)} files is a photo that can be read")
    if not found.drawn:
        highest = "nothing was found" if found.highest_score is None else f"the highest is {found.highest_score:.2f}"
        complain(f"No score reaches {cfg.score}, so that nothing is drawn: {highest}. score=... sets another.")
    of = f" of {len(photos)}" if found.broken else ""
    say(f"{len(found.overlays)}{of} overlays and predictions.json are in {cfg.out}")
    return {
        "out": cfg.out,
        "images": len(found.overlays),
        "instances": found.instances,
        "drawn": found.drawn,
        "broken": {str(path): reason for path, reason in found.broken.items()},
    }


def main() -> None:
    verb.run("predict", predict)


if __name__ == "__main__":
    main()
