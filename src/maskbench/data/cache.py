"""Where drawn data sets, fingerprints and profiles are kept between runs."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """`$MASKBENCH_CACHE`, or `~/.cache/maskbench`."""
    return Path(os.environ.get("MASKBENCH_CACHE") or "~/.cache/maskbench").expanduser()


def beside(path: Path) -> Path:
    """A name next to `path` that no other process uses: write there, then `os.replace` it into place."""
    return path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def recall(path: Path) -> Any | None:
    """What `remember` wrote there; None if there is nothing that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def remember(path: Path, value: Any) -> None:
    """Keep a value as json for the next run. A cache that can't be written costs time, never the run."""
    temporary = beside(path)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        os.replace(temporary, path)
