"""The stopwatch of `speed`: one contender, one image, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from maskbench.evaluation.autocast import autocast
from maskbench.structures import Batch, Frame, Instances

WINDOW, TOLERANCE, LONGEST_WARM_UP = 3, 0.1, 20
"""A contender is warm when the median of its last three latencies is within 10 % of the median of the three before, or
after twenty predictions. All of them are of the largest image, so that the allocator has grown to its size."""


@runtime_checkable
class Contender(Protocol):
    """What can be timed: a `Segmenter`, or any other module that predicts in these three steps."""

    def prepare(self, batch: Batch) -> Tensor: ...

    def __call__(self, images: Tensor) -> Any: ...

    def instances(self, raw: Any, frames: Sequence[Frame]) -> list[Instances]: ...

    def to(self, device: torch.device) -> Any: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class Turn:
    """One timed prediction: milliseconds by phase, and what came out."""

    phases: dict[str, float]
    rle: float
    found: int
    encoded: bool

    @property
    def latency(self) -> float:
        return sum(self.phases.values())


@dataclass(frozen=True)
class Rig:
    """Where and in which precision everybody predicts."""

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager:
        # Entered anew for each image: while it lasts, autocast keeps the weights that it has cast.
        return autocast(self.device, self.precision)

    def load(self, method: Contender, batch: Batch) -> Tensor:
        return method.prepare(replace(batch, images=batch.images.to(self.device)))

    def predict(self, method: Contender, batch: Batch) -> Instances:
        with self.autocast():
            (found,) = method.instances(method(self.load(method, batch)), batch.frames)
        return found

    def time(self, method: Contender, batch: Batch) -> Turn:
        with self.autocast():
            start = self._now()
            prepared = self.load(method, batch)
            loaded = self._now()
            raw = method(prepared)
            computed = self._now()
            (found,) = method.instances(raw, batch.frames)
            finished = self._now()
        found.masks.rle()
        encoded = self._now()
        phases = {"prepare": loaded - start, "network": computed - loaded, "instances": finished - computed}
        return Turn(phases, encoded - finished, len(found), not found.masks.is_dense)

    def _now(self) -> float:
        """Milliseconds, once the device has done all it was told."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return perf_counter() * 1000


@contextmanager
def ready(contenders: Collection[Contender], device: torch.device, threads: int) -> Iterator[None]:
    """Contenders on the device, in evaluation and inference mode, on so many threads."""
    modes = [(module, module.training) for method in contenders for module in method.modules()]
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for method in contenders:
            method.to(device)
        for module, _ in modes:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads_before)
        for module, training in modes:
            module.training = training


def warm_up(predict: Callable[[], Turn]) -> dict[str, Any]:
    """Predict until steady (see `WINDOW`): how often that was, and whether it was reached."""
    latencies: list[float] = []
    steady = False
    while not steady and len(latencies) < LONGEST_WARM_UP:
        latencies.append(predict().latency)
        if len(latencies) >= 2 * WINDOW:
            before, last = median(latencies[-2 * WINDOW : -WINDOW]), median(latencies[-WINDOW:])
            steady = abs(last - before) <= TOLERANCE * before
    return {"warm_up": len(latencies), "steady": steady}
