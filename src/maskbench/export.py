"""A trained network as a file that runs elsewhere.

`python -m maskbench.export run=DIR out=FILE.onnx`, or `format=torch` and a file that ends in .pt2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.errors import ConfigError
from maskbench.runtime import verb
from maskbench.runtime.console import complain, say


def export(cfg: DictConfig) -> dict[str, Any]:
    """Write the network, hold it to the method's own on a random image, and write beside it what it takes to use it.

    Raises:
        ConfigError: settings that don't go together, or something that has to be installed.
        ExportError: the network can't be exported, or the file computes something else.
    """
    if (cfg.run is None) == (cfg.weights is None):
        raise ConfigError("name what is to be exported: either run=DIR, or weights=FILE as convert made it")
    from maskbench.runtime import exporting
    from maskbench.runtime.export_notes import notes
    from maskbench.runtime.exported import can_run
    from maskbench.runtime.published import load_weights
    from maskbench.runtime.run_folder import load_method, write_json

    out, suffix = Path(cfg.out).expanduser(), exporting.SUFFIXES.get(cfg.format)
    if suffix is None:
        raise ConfigError(f"format={cfg.format}: expected one of {', '.join(exporting.SUFFIXES)}")
    if out.suffix != suffix:
        raise ConfigError(f"out={cfg.out}: expected a name that ends in {suffix}, as format={cfg.format} has it")
    trained = load_method(cfg.run) if cfg.run else load_weights(cfg.weights)
    size = None if cfg.size is None else tuple(cfg.size)
    given = exporting.Input(size, cfg.batch, trained.cfg.data.divisor)
    exported = exporting.export(trained.method, out, cfg.format, given)
    apart = exporting.largest_difference(trained.method, exported, given) if can_run(out) else None
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
