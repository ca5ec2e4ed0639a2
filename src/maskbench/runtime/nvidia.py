"""What `nvidia-smi` says, for processes that do without torch."""

from __future__ import annotations

import os
import shutil
import subprocess


def visible_gpus() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them; none where there is none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return _query("index")
    devices = [device.strip() for device in named.split(",")]
    # CUDA itself reads up to the first that is none
    last = next((place for place, device in enumerate(devices) if device in ("", "-1")), len(devices))
    return devices[:last]


def smallest_memory() -> int | None:
    """Bytes of the one of this process's GPUs that has the least; None where there is none, or one tells nothing."""
    seen, found = visible_gpus(), []
    for line in _query("index,uuid,memory.total"):
        index, uuid, size = line.split(", ")
        megabytes = size.split()[0]
        if megabytes.isdigit() and any(gpu == index or uuid.startswith(gpu) for gpu in seen):
            found.append(int(megabytes))
    return 2**20 * min(found) if found else None


def driver() -> str | None:
    """The version of the GPUs' driver; None where there is none."""
    return next(iter(_query("driver_version")), None)


def _query(fields: str) -> list[str]:
    """A line of each GPU with its fields."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):  # installed, but without a driver that it could ask
        return []
    return [line.strip() for line in found.stdout.splitlines() if line.strip()]
