"""A trained network as a file that runs elsewhere.

`python -m maskbench.export run=DIR out=FILE.onnx`, or `format=torch` and a file that ends in .pt2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.atomic import beside, writing
from maskbench.errors import ConfigError
from maskbench.runtime import verb
from maskbench.runtime.console import complain, say
from maskbench.runtime.values import require, require_one

VALUES: dict[str, Any] = {
    **dict.fromkeys(("run", "weights"), str | None),
    "out": str,
    "size": Sequence[int] | None,
    "batch": int | None,
}


def export(cfg: DictConfig) -> dict[str, Any]:
    """Write the network, once it is held to the method's own on a random image, and beside it what it takes to use it.

    Raises:
        ConfigError: settings that don't go together, or something that has to be installed.
        ExportError: the network can't be exported, or the file computes something else.
    """
    require(cfg, VALUES)
    require_one(cfg, {"run": "run=DIR", "weights": "weights=FILE as convert made it"}, "export")
    from maskbench.runtime import exporting
    from maskbench.runtime.export_notes import notes
    from maskbench.runtime.exported import can_run
    from maskbench.runtime.predicting import load
    from maskbench.runtime.run_folder import write_json

    require(cfg, {"format": exporting.Format})
    out, suffix = Path(cfg.out).expanduser(), exporting.SUFFIXES[cfg.format]
    if out.suffix != suffix:
        raise ConfigError(f"out={cfg.out}: expected a name that ends in {suffix}, as format={cfg.format} has it")
    trained = load(cfg.run or cfg.weights)
    size = None if cfg.size is None else tuple(cfg.size)
    given = exporting.Input(size, cfg.batch, trained.cfg.data.divisor)
    # beside its place, since an earlier file is better than one that fails; readers go by the suffix
    unchecked = out.with_name(f"{beside(out).name}{suffix}")
    try:
        exported = exporting.export(trained.method, unchecked, cfg.format, given)
        apart = exporting.largest_difference(trained.method, exported, given) if can_run(out) else None
        with writing(out):
            unchecked.replace(out)
    finally:
        unchecked.unlink(missing_ok=True)
    write_json(out.with_suffix(".json"), notes(trained, exported, cfg.format, given) | {"largest_difference": apart})
    if bound := [axis for axis in given.free if axis not in exported.free]:
        shape = " × ".join(map(str, exported.shapes["images"]))
        complain(
            f"{', '.join(bound)} could not be left free: the images are {shape}. size=[H,W] and batch=N choose others"
        )
    if apart is None:
        complain("onnxruntime is not installed: nobody has checked what the file computes")
    else:
        say(f"{out} computes what the method does: on a random image they differ by {apart:.2g} at most")
    if exported.outside:
        say(f"not in it are {', '.join(exported.outside)}, which the method runs on what it selects (see the .json)")
    return {
        "out": str(out),
        "notes": str(out.with_suffix(".json")),
        "free": list(exported.free),
        "images": list(exported.shapes["images"]),
        "outputs": [name for name in exported.shapes if name not in ("images", "sizes")],
        "outside": list(exported.outside),
        "largest_difference": apart,
    }


def main() -> None:
    verb.run("export", export)


if __name__ == "__main__":
    main()
