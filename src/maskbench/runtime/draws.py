"""What a method draws while it trains, the same after an interruption as without one."""

from __future__ import annotations

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from maskbench.structures import Batch


class Draws(Callback):
    """Seeds torch's global generators by (seed, epoch, batch, rank) before each step of training.

    Methods draw from them (Mask R-CNN its regions), and no checkpoint holds them: a resumed run would go on elsewhere.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(step_seed(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank))


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """64 bits of which neighbouring steps and ranks share nothing."""
    return int(np.random.SeedSequence([seed, epoch, batch, rank]).generate_state(1, np.uint64)[0])
