"""Training on several devices of one machine is one process a device, and all of them run the same command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from maskbench.errors import ConfigError


def leads() -> bool:
    """Whether this process speaks and writes for all: Lightning starts the others with a LOCAL_RANK of their own."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def require_one_node(trainer: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if training is to span machines: each would have a process that speaks and writes for all."""
    nodes = trainer.get("num_nodes") or 1
    if nodes != 1:
        raise ConfigError(f"a run trains on one machine, found trainer.num_nodes={nodes}: take it out")
