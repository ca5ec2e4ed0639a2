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

LIBRARIES = ("torch", "torchvision", "lightning", "timm", "albumentations", "faster-coco-eval", "numpy")


def environment(device: torch.device) -> dict[str, Any]:
    """Device, driver, threads, library versions and code commit, as the fairness key `environment` has them."""
    return {
        "device": device_name(device),
        "driver": torch.version.cuda if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "maskbench": maskbench.__version__,
        "commit": commit(),
    }


def device_name(device: torch.device) -> str:
    """The model of the GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout this package runs from (with `-dirty` when files were changed); None when installed."""
    root = Path(maskbench.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # git is no dependency
        return None
