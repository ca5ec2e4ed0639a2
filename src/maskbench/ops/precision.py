"""Where half precision is not enough."""

from __future__ import annotations

import torch


def full_precision(device: torch.device) -> torch.autocast:
    """Keeps autocast off products whose terms count pixels or lie far apart: a `float()` before `@` does not."""
    return torch.autocast(device.type, enabled=False)
