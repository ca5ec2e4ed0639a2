"""Where drawn data sets, fingerprints and profiles are kept between runs."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from maskbench.atomic import replace_text


def cache_folder() -> Path:
    """`$MASKBENCH_CACHE`, or `~/.cache/maskbench`."""
    return Path(os.environ.get("MASKBENCH_CACHE") or "~/.cache/maskbench").expanduser()


def recall(path: Path) -> Any | None:
    """What `remember` wrote there; None if there is nothing that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def remember(path: Path, value: Any) -> None:
    """Keep a value as json for the next run. A cache that can't be written costs time, never the run."""
    with contextlib.suppress(OSError):
        replace_text(path, json.dumps(value))
