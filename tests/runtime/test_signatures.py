from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskbench.errors import ConfigError
from maskbench.runtime.signatures import require_signatures
from trained import composed


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "maskbench.methods.solov2.SOLOv2", "width": 64, "grids": [4, 2]},
        {"_target_": "maskbench.methods.mask_rcnn.MaskRCNN", "point": None, "norm": False},  # of a base, and its own
        {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.99], "foreach": None},
        {"_target_": "lightning.Trainer", "devices": "auto", "max_epochs": None, "precision": 32},
        {"_target_": "maskbench.data.shapes.draw", "anything": "goes"},  # it says itself what is wrong
        {"_target_": "maskbench.structures.OperatingPoint", "candidates": None},
        {"_target_": "albumentations.HorizontalFlip", "p": "???"},
    ],
)
def test_what_is_taken(node: dict) -> None:
    require_signatures(OmegaConf.create({"part": [node]}))


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"_target_": "maskbench.methods.solov2.SOLOv2", "wdth": 1}, r"no setting part\.wdth: .* did you mean width\?"),
        ({"_target_": "maskbench.methods.solov2.SOLOv2", "width": "x"}, r"part\.width=x: expected a whole number"),
        (
            {"_target_": "maskbench.methods.solov2.SOLOv2", "point": 3},
            r"part\.point=3: expected OperatingPoint or null",
        ),
        (
            {"_target_": "maskbench.structures.OperatingPoint", "max": 3},
            r"no setting part\.max: .* there are score_thres",
        ),
        ({"_target_": "torch.optim.AdamW", "lr": "x"}, r"part\.lr=x: expected a number or Tensor"),
        ({"_target_": "albumentations.HorizontalFlip", "x": 1}, r"no setting part\.x: .* there are p$"),
        ({"_target_": "wandb.init", "mode": "live"}, r"part\.mode=live: expected one of online, offline"),
        ({"_target_": "maskbench.methods.solov2.SOLO", "x": 1}, r"part\._target_=maskbench.*SOLO: can't be found \("),
        ({"_target_": "nowhere.at.all"}, r"part\._target_=nowhere\.at\.all: can't be found \("),
        ({"_target_": "maskbench.methods.optim.steps", "at": [0.5, "x"]}, r"at=\[0\.5, \"x\"\]: expected a list, each"),
    ],
)
def test_what_is_not_is_told_by_its_place(node: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        require_signatures(OmegaConf.create({"part": node}))


def test_every_config_is_what_it_calls_takes(root: Path) -> None:
    """All members of all groups; what a method is made of is in its own."""
    groups = ("data", "transforms", "backbone", "optim", "trainer", "evaluation", "logger")
    members = [[f"{group}={path.stem}" for path in sorted((root / "conf" / group).glob("*.yaml"))] for group in groups]
    for chosen in zip_longest(*members):
        require_signatures(composed("train", [*filter(None, chosen), "data.root=."]))
