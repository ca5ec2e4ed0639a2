"""What an offline W&B run has logged, as W&B's own reader tells it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Logged:
    """A row of history for each time something was logged; of the summary and the config what was told last."""

    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def logged(folder: Path) -> Logged:
    """Of the one run in the folder."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    found = Logged()
    for kind, told in ((record["type"], record.get(record["type"], {})) for record in map(json.loads, lines)):
        if kind == "history":
            found.history.append(told["item"])
        elif kind == "summary":
            found.summary |= told["update"]
        elif kind in ("run", "config"):
            found.config |= (told["config"] if kind == "run" else told)["update"]
    return found
