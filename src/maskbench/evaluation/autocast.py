"""What a prediction casts to."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from maskbench.evaluation.precision import precision_name

CASTS = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""By the name of the precision."""


def autocast(device: torch.device, precision: str | int) -> AbstractContextManager:
    """The context that a prediction runs in."""
    cast = CASTS[precision_name(precision)]
    return torch.autocast(device.type, dtype=cast, enabled=cast is not None)
