"""On which machine, with which libraries and in what company something was timed."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from time import perf_counter

import torch
import torchvision

_CPUINFO, _STAT = Path("/proc/cpuinfo"), Path("/proc/stat")


def device_name(device: torch.device) -> str:
    """The model of a GPU or, for `cpu`, of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and _CPUINFO.exists():
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def library_versions() -> dict[str, str]:
    """Versions that move a latency."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {**versions, "cuda": torch.version.cuda} if torch.version.cuda else versions


class Company:
    """How much of the machine other processes use, from construction to reading.

    The load average looks back over minutes, and after a training it still shows that training. So Linux' own count of
    processor time is read, less what this process used.
    """

    def __init__(self) -> None:
        self.load_average = os.getloadavg()[0]
        self._start = _processor_seconds()
        self._clock = perf_counter()

    def other_cores(self) -> float | None:
        """Cores that other processes kept busy on average, or None where the system doesn't tell."""
        now = _processor_seconds()
        if now is None or self._start is None:
            return None
        return max(0.0, (now - self._start) / (perf_counter() - self._clock))


def _processor_seconds() -> float | None:
    """Seconds of all cores since boot that were neither idle nor this process's."""
    if not _STAT.exists():
        return None
    user, nice, system, _idle, _wait, irq, softirq = map(int, _STAT.read_text().split()[1:8])
    own = resource.getrusage(resource.RUSAGE_SELF)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK") - own.ru_utime - own.ru_stime
