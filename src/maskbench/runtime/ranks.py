"""Training on several devices is one process a device, and all of them run the same command."""

from __future__ import annotations

import os


def leads() -> bool:
    """Whether this process speaks and writes for all: Lightning starts the others with a LOCAL_RANK of their own."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
