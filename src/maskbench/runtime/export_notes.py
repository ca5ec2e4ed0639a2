"""What stands beside an exported network: all that somebody has to know who runs it without maskbench."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from maskbench import __version__
from maskbench.methods.base import Paradigm
from maskbench.runtime.exporting import Exported, Format, Input
from maskbench.runtime.run_folder import Trained

STEPS: dict[Paradigm, str] = {
    "two-stage": "proposals of the anchors, features of their regions, heads of boxes and masks, suppression, masks",
    "one-stage": "candidates above the score threshold, their masks, suppression",
    "bottom-up": "cells of the foreground shared out among instances, their scores, masks",
    "hybrid": "boxes, their suppression, cells shared out among them, masks",
}
"""From the outputs to instances in photo pixels, which `Segmenter.instances` takes."""


def notes(trained: Trained, exported: Exported, format: Format, given: Input) -> dict[str, Any]:
    """What goes in, what comes out and what is left to do, for a file of json."""
    method, resize, shapes = trained.method, trained.cfg.transforms.eval, dict(exported.shapes)
    mean, std = (pixel.flatten().tolist() for pixel in (method.backbone.mean, method.backbone.std))
    # so that the coarsest map, of twice the backbone's last stride, has two cells a side, as it had when it was traced
    least = {"at_least": 2 * max(method.backbone.strides) + given.divisor} if "height" in exported.free else {}
    return {
        "maskbench": __version__,
        "torch": torch.__version__,
        "format": format,
        "opset": exported.opset,
        "method": type(method).__name__,
        "precision": "float32",
        "classes": list(method.classes),
        "category_ids": list(trained.category_ids),
        "inputs": {
            "images": {
                "shape": list(shapes.pop("images")),
                "type": "uint8",
                "pixels": "RGB, 0 to 255: photos resized, then padded right and bottom",
                "resize": {"short": resize.get("short"), "long": resize.get("long")},
                "height_and_width": {"multiples_of": given.divisor, **least},
            },
            "sizes": {
                "shape": list(shapes.pop("sizes")),
                "type": "int64",
                "meaning": "height and width of the resized photo in each image, without the padding",
            },
        },
        "normalisation": {"inside": True, "mean": mean, "std": std},
        "outputs": {name: {"shape": list(shape), "type": exported.types[name]} for name, shape in shapes.items()},
        "outside": {
            "steps": STEPS[method.paradigm],
            "function": f"{type(method).__module__}.{type(method).__name__}.instances",
            "point": asdict(method.point),
            "weights": list(exported.outside),
        },
    }
