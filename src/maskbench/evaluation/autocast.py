"""The precisions that a trained method can predict in, by Lightning's names."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from maskbench.errors import ConfigError

CASTS = {"32-true": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""What each of them casts to."""


def precision_name(precision: str | int) -> str:
    """The precision under its one name: 32 is `32-true`.

    Raises:
        ConfigError: methods can't predict in it.
    """
    name = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(str(precision), str(precision))
    if name not in CASTS:
        raise ConfigError(f"precision is one of {', '.join(CASTS)}, found {precision!r}")
    return name


def autocast(device: torch.device, precision: str | int) -> AbstractContextManager:
    """The context that a prediction runs in."""
    cast = CASTS[precision_name(precision)]
    return torch.autocast(device.type, dtype=cast, enabled=cast is not None)
