from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import WandbLogger

from maskbench.runtime.media import class_map, end_curve, summarise
from maskbench.runtime.run_folder import RunFolder
from maskbench.structures import Instances, Masks


def test_the_class_map_shows_the_best_instance_of_each_pixel() -> None:
    masks = torch.zeros((3, 4, 6), dtype=torch.bool)
    masks[0, :, :2] = True
    masks[1, :, 1:4] = True
    masks[2] = True  # too faint to be shown
    found = Instances(Masks(masks), torch.zeros(3, 4), torch.tensor([4, 0, 1]), torch.tensor([0.9, 0.5, 0.2]))
    assert (class_map(found) == np.array([5, 5, 1, 1, 0, 0])).all()
    assert not class_map(Instances.empty((4, 6))).any()


@pytest.mark.parametrize(("checkpoint", "logged"), [("last", 1), ("best (selected on tune)", 0)])
def test_the_curve_ends_with_what_is_judged_if_training_does(checkpoint: str, logged: int) -> None:
    logger = Mock(spec=WandbLogger)
    told = {"checkpoint": checkpoint, "images_seen": 24, "minutes": 30.0, "tune": {"segm": {"AP": 0.4, "AP50": 0.6}}}
    end_curve(logger, told, 4)
    end_curve(logger, {"checkpoint": checkpoint}, 4)  # without a tune split
    calls = [call.args for call in logger.log_metrics.mock_calls]
    assert calls == logged * [({"tune/AP": 0.4, "tune/AP50": 0.6, "images": 24, "hours": 0.5}, 4)]


def test_what_there_are_no_objects_for_is_left_out(tmp_path: Path) -> None:
    told = {"segm": {"AP": 0.4, "APl": -1.0}, "bbox": {"AP": 0.5}, "epochs": 2, "images_seen": 24, "minutes": 0.5}
    (tmp_path / "metrics.json").write_text(json.dumps(told))
    experiment = Mock(spec=wandb.Run, summary=Mock())
    summarise(experiment, RunFolder(tmp_path))
    (call,) = experiment.summary.update.mock_calls
    assert call.args == ({"test/segm/AP": 0.4, "test/bbox/AP": 0.5, "epochs": 2, "images_seen": 24, "minutes": 0.5},)
