from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from maskbench.errors import DivergedError
from maskbench.runtime.checkpoints import Checkpoints, newest
from maskbench.runtime.divergence import Divergence
from maskbench.structures import Batch, Frame, Instances

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
STEPS = 6  # of an epoch


class Losing(LightningModule):
    """Its mask loss is `value` at one step, and all are then."""

    def __init__(self, step: int, value: float) -> None:
        super().__init__()
        self.weight, self.step, self.value = nn.Parameter(torch.ones(1)), step, value

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        bad = self.value if self.global_step >= self.step else 1.0
        losses = {"class": self.weight.square().sum(), "mask": bad * self.weight.sum()}
        total = sum(losses.values())
        self.log_dict(
            {f"train/{name}": loss.detach() for name, loss in {**losses, "loss": total}.items()}, batch_size=1
        )
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(step: int, tmp_path: Path, value: float = math.nan, every: int = 50) -> Trainer:
    callbacks = [Divergence(every), Checkpoints(tmp_path / "checkpoints", {})]
    trainer = Trainer(accelerator="cpu", max_epochs=3, callbacks=callbacks, default_root_dir=tmp_path, **QUIET)
    frame = Frame(1, (8, 8), (8, 8))
    batch = Batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), (Instances.empty((8, 8)),), (frame,))
    trainer.fit(Losing(step, value), DataLoader([batch] * STEPS, batch_size=None))
    return trainer


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_it_ends_before_the_epoch_is_saved_and_says_which_loss_it_was(tmp_path: Path, value: float) -> None:
    with pytest.raises(DivergedError, match=r"diverged: mask is no finite number since step 9 \(epoch 2\)"):
        fit(8, tmp_path, value)
    saved = newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved[1] == 1
    weights = torch.load(saved[0], weights_only=True)["state_dict"]
    assert weights["weight"].isfinite().all()


def test_it_ends_in_the_middle_of_a_long_epoch(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="since step 2 "):
        fit(1, tmp_path, every=4)


def test_a_sound_training_goes_through(tmp_path: Path) -> None:
    assert fit(100, tmp_path).current_epoch == 3
