"""Where a run was computed: what speeds depend on and AP does not."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import maskbench
from maskbench.evaluation.machine import device_name, library_versions
from maskbench.runtime.nvidia import driver

LIBRARIES = ("lightning", "timm", "albumentations", "faster-coco-eval", "numpy")
"""Beside those that move a latency."""


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver, CUDA, threads, library versions and code commit, as the fairness key `environment` has them."""
    return {
        "device": device_name(device),
        "driver": driver() if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        **library_versions(),
        **{name: version(name) for name in LIBRARIES},
        "maskbench": maskbench.__version__,
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` when files were changed; None when installed."""
    root = Path(maskbench.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # git is no dependency
        return None
