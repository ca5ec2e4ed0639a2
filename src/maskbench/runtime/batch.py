"""How many images a GPU trains on at once, told on a CPU: by the tensors that training steps hold."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf

from maskbench.data.fitting.rules import Fitted
from maskbench.errors import ConfigError
from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.cost import peak_memory
from maskbench.evaluation.precision import precision_name
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build
from maskbench.structures import Batch

CPU = torch.device("cpu")
SHARE = 0.8
"""Of the memory that tensors may take: libraries need some, what is freed comes back in pieces, and photos differ."""
MOST = 16
"""Images: what the field's recipes take, and their learning rates are made for."""
TOGETHER = "Batch and learning rate belong together, and methods to be compared take the smallest of theirs."
PROBE = 4
"""Images of the step that is looked at."""
STATES = 2
"""Tensors of its own that an optimiser keeps for each weight (AdamW)."""


def fit_batch(cfg: DictConfig, memory: float) -> Fitted:
    """The largest power of two whose training step fits, up to `MOST`.

    A step of a few images tells what one takes. It is an estimate: what a kernel needs for itself is not seen, and
    `out_of_memory=halve` is there for where it is wrong.

    Args:
        cfg: with all that is fitted to the data.
        memory: bytes of one GPU.

    Raises:
        ConfigError: not even one image fits.
    """
    image, shared = step_memory(cfg)
    most = int((SHARE * memory - shared) / image)
    sizes = f"an image takes {image / 1e9:.2f} GB in training, weights and what belongs to them {shared / 1e9:.2f} GB"
    if most < 1:
        raise ConfigError(
            f"{sizes}, which is more than {SHARE:.0%} of {memory / 1e9:.0f} GB: lower transforms.eval.short, take a "
            "narrower method, or set data.batch yourself"
        )
    value = min(MOST, 2 ** (most.bit_length() - 1))
    return Fitted(
        "data.batch", value, f"On one device of {memory / 1e9:.0f} GB: {sizes} (measured on a CPU). {TOGETHER}"
    )


def step_memory(cfg: DictConfig) -> tuple[float, int]:
    """Bytes that a training step holds for each image, and those of weights, gradients and the optimiser's own."""
    few = cfg.copy()
    OmegaConf.update(few, "data.batch", PROBE)
    few.backbone.weights = "scratch"  # whatever they are, they take the same room
    data, method = build(few)
    batch = next(iter(data.train_dataloader()))
    held, _ = peak_memory(lambda: _step(method.train(), batch, cfg.trainer.precision), CPU)
    assert held is not None
    weights = sum(weight.nbytes for weight in method.parameters())
    return (held - weights) / len(batch), (2 + STATES) * weights  # what is held at the peak has gradients in it


def _step(method: Segmenter, batch: Batch, precision: str) -> None:
    """Forward and backward pass; the gradients stay, as in training."""
    with autocast(CPU, precision_name(precision)):
        total = torch.stack(list(method.loss(batch).values())).sum()
    total.backward()
