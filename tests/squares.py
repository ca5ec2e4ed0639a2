"""What the tests of the SOLO family share: squares to learn, a thin backbone, the loss of an output made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from maskbench.methods.base import Segmenter
from maskbench.nn.backbone import Backbone
from maskbench.runtime.compose import make
from maskbench.structures import Batch, Frame, Instances, Masks

FRAME = Frame(1, photo=(128, 128), resized=(128, 128))

# For images of 128 pixels, as in conf/method/small.
GRIDS: dict[str, Any] = {
    "grids": (16, 14, 12, 8, 6),
    "ranges": ((1, 24), (16, 40), (28, 56), (44, 96), (80, 2048)),
}


def thin_backbone() -> Backbone:
    """It is built in no time, and its maps are all eight channels wide."""
    return Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})


def settings_of(root: Path, variant: str) -> dict[str, Any]:
    """The constructor's arguments as conf/method has them for a variant of a paper's method."""
    config = OmegaConf.load(root / "conf" / "method" / f"{variant}.yaml")
    paper = config.pop("defaults")[0].removesuffix("@_here_").rsplit("/", 1)[1]
    merged = OmegaConf.merge(OmegaConf.load(root / "conf" / "method" / f"{paper}.yaml"), config)
    return dict(make({**OmegaConf.to_container(merged), "_target_": "builtins.dict"}))


def squares(*sides: int) -> Instances:
    """Squares around the middle of 128 × 128, of alternating class."""
    masks = torch.zeros(len(sides), 128, 128, dtype=torch.bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[64 - side // 2 : 64 + side // 2, 64 - side // 2 : 64 + side // 2] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.arange(len(sides)) % 2, torch.ones(len(sides)))


def neighbours() -> Instances:
    """Two objects of one class whose centres lie a cell of 16 a side apart, on columns 4 and 5."""
    masks = torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[0, 40:64, 32:40] = masks[1, 40:64, 40:48] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.zeros(2, dtype=torch.long), torch.ones(2))


def losses_of(method: Segmenter, raw: Any, target: Instances, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What an output costs on an image of one target."""
    monkeypatch.setattr(method, "forward", lambda images: raw)
    batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), (target,), (FRAME,))
    return {name: loss.item() for name, loss in method.loss(batch).items()}
