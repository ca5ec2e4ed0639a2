"""What a method draws while it trains, the same after an interruption as without one."""

from __future__ import annotations

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from maskbench.structures import Batch


class Draws(Callback):
    """Seeds torch's global generator by (seed, epoch, rank) at each epoch of training.

    Methods draw from it (Mask R-CNN its regions), and no checkpoint holds it: a resumed run would go on elsewhere.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        # not when the epoch starts: a loader that begins draws too, in a run's first epoch before and later after that
        if batch_idx == 0:
            torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch, trainer.global_rank))


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """64 bits of which neighbouring epochs and ranks share nothing."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0])
