"""The optimiser and its learning-rate curve, the same for every method of a comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from maskbench.errors import ConfigError

Curve = Callable[[float], float]
"""Share of the run that is done, 0…1 → factor on the learning rate, 0…1."""


class Scheduled(TypedDict):
    """An optimiser with a curve that moves at every step, as Lightning takes it."""

    optimizer: Optimizer
    lr_scheduler: dict[str, object]


def cosine(done: float, floor: float = 0.0) -> float:
    """Half a cosine from 1 down to `floor` (Loshchilov & Hutter, ICLR 2017)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def steps(done: float, at: Iterable[float] = (8 / 12, 11 / 12), factor: float = 0.1) -> float:
    """`factor` at each share of the run in `at`; the default is detectron2's and MMDetection's 1x schedule."""
    return factor ** sum(done >= share for share in at)


@dataclass(frozen=True)
class Optim:
    """Builds the optimiser of a method and its schedule over a known number of steps.

    Args:
        optimiser: takes parameter groups; its learning rate is the peak.
        curve: factor on the learning rate after the warm-up.
        warmup: share of all steps over which the learning rate rises linearly from 0.
        decay_norm_and_bias: whether weight decay falls on one-dimensional parameters too.

    Raises:
        ConfigError: the warm-up is no share.
    """

    optimiser: Callable[[list[dict[str, object]]], Optimizer] = field(
        default_factory=lambda: partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05)
    )
    curve: Curve = cosine
    warmup: float = 0.08
    decay_norm_and_bias: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"optim.warmup={self.warmup}: expected a share of all steps, 0 to 1")

    def __call__(self, module: nn.Module, total_steps: int) -> Scheduled:
        """The optimiser over the trainable parameters of `module`, annealed over `total_steps`."""
        optimizer = self.optimiser(self._groups(module))
        warmup = max(1, round(self.warmup * total_steps))

        def factor(step: int) -> float:
            done = min(1.0, max(0, step - warmup) / max(1, total_steps - warmup))
            return min(1.0, (step + 1) / warmup) * self.curve(done)

        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _groups(self, module: nn.Module) -> list[dict[str, object]]:
        trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if self.decay_norm_and_bias:
            return [{"params": trainable}]
        matrices = [parameter for parameter in trainable if parameter.ndim > 1]
        vectors = [parameter for parameter in trainable if parameter.ndim <= 1]
        return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
