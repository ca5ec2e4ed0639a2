"""A training whose losses are no numbers any more ends at once, and says which loss it was."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from maskbench.errors import DivergedError
from maskbench.structures import Batch

PREFIX = "train/"


class Divergence(Callback):
    """Raises `DivergedError` before an epoch with such a loss is saved, so that the checkpoints are of sound weights.

    It looks on the device, and asks it only now and then: a step that waits for the answer would hold up the next.

    Args:
        every: steps between two questions; the last step of an epoch asks, too.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        self._first: dict[str, Tensor] = {}
        """By loss the step at which it was first no number, −1 while it is one."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(PREFIX):
                before = self._first.get(name, torch.full_like(value, -1, dtype=torch.long))
                self._first[name] = torch.where((before < 0) & ~value.isfinite(), trainer.global_step, before)
        if (batch_idx + 1) % self.every == 0 or trainer.is_last_batch:
            self._ask(trainer)

    def _ask(self, trainer: Trainer) -> None:
        steps = {name: int(first) for name, first in self._first.items() if first >= 0}
        # all processes end together, or the others would wait for this one
        if not trainer.strategy.reduce_boolean_decision(bool(steps), all=False):
            return
        start = min(steps.values(), default=trainer.global_step)
        losses = [
            name.removeprefix(PREFIX) for name, step in steps.items() if step == start and name != f"{PREFIX}loss"
        ]
        raise DivergedError(
            f"training diverged: {' and '.join(losses) or 'a loss'} is no finite number since step {start} (epoch "
            f"{trainer.current_epoch + 1}). Checkpoints of the epochs before are whole. Lower optim.optimiser.lr or "
            "trainer.gradient_clip_val, or try trainer.precision=32-true"
        )
