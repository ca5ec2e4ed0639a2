"""Weights of others that `convert` has made ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoints import THIN, detectron2
from maskbench.convert import convert
from trained import call

CLASSES = "classes=[disc,rectangle,triangle]"


def source(folder: Path, classes: int = 3) -> Path:
    """A thin Mask R-CNN as detectron2 saves it while it trains."""
    path = folder / f"model_{classes}.pth"
    state = detectron2(**{**THIN, "box_width": 8}, classes=classes)
    torch.save({"model": state, "iteration": 9, "optimizer": {"state": {}}}, path)
    return path


def converted(folder: Path, classes: int = 3, *overrides: str) -> Path:
    out = folder / f"their {classes}.safetensors"
    given = ("layout=detectron2", "method=mask_rcnn", f"out='{out}'", "short=64", "long=128", *overrides)
    call(convert, f"source={source(folder, classes)}", *given)
    return out


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thin Mask R-CNN whose weights others have drawn."""
    torch.manual_seed(0)
    return converted(tmp_path_factory.mktemp("weights"), 3, CLASSES)
