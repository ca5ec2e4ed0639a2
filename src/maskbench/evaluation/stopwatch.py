"""The stopwatch of `speed`: one contender, one batch, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.execution import Network, executed
from maskbench.phases import Phase, heard
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
    """One timed prediction: milliseconds altogether and by phase, and what came out."""

    latency: float
    phases: dict[str, float]
    found: list[Instances]


class HostClock:
    """Milliseconds of the host, once the device has done all it was told."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return perf_counter() * 1000

    def between(self, first: float, last: float) -> float:
        return last - first


class CudaClock:
    """Moments on the GPU's own time line: to ask for them stops nobody, so that host and device work side by side."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        return first.elapsed_time(last)


class Laps:
    """What time each phase took, those inside it apart; a phase that comes again adds to itself."""

    def __init__(self, clock: HostClock | CudaClock) -> None:
        self._clock = clock
        self._open: list[str] = []
        self._marks: list[tuple[str | None, Any]] = []

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        self._open.append(phase)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    def _mark(self) -> None:
        """Note that another phase is the innermost from now on."""
        self._marks.append((self._open[-1] if self._open else None, self._clock.mark()))

    def milliseconds(self) -> dict[str, float]:
        """By phase, when all is done."""
        spent: dict[str, float] = {}
        for (phase, begun), (_, ended) in pairwise(self._marks):
            if phase is not None:
                spent[phase] = spent.get(phase, 0.0) + self._clock.between(begun, ended)
        return spent


@dataclass(frozen=True)
class Entrant:
    """A contender at the start, and what runs its network."""

    method: Contender
    network: Network


@dataclass(frozen=True)
class Rig:
    """Where, in which precision and by what means everybody predicts."""

    device: torch.device
    precision: str
    execution: str = "eager"

    def entrant(self, method: Contender) -> Entrant:
        return Entrant(method, executed(method, self.execution, self.device))

    def autocast(self) -> AbstractContextManager:
        # Entered anew for each image: while it lasts, autocast keeps the weights that it has cast.
        return autocast(self.device, self.precision)

    def load(self, method: Contender, batch: Batch) -> Tensor:
        return method.prepare(replace(batch, images=batch.images.to(self.device)))

    def predict(self, entrant: Entrant, batch: Batch) -> list[Instances]:
        method = entrant.method
        with self.autocast():
            return method.instances(entrant.network(self.load(method, batch)), batch.frames)

    def time(self, entrant: Entrant, batch: Batch) -> Turn:
        method, wall = entrant.method, HostClock(self.device)
        laps = Laps(CudaClock() if self.device.type == "cuda" else wall)
        # what is recorded or compiled runs as one
        whole: Phase = "heads" if self.execution == "eager" else "network"
        inside = laps if self.execution == "eager" else None
        start = wall.mark()
        with self.autocast():
            with laps("prepare"):
                prepared = self.load(method, batch)
            with laps(whole), heard(inside):
                raw = entrant.network(prepared)
            with laps("selection"), heard(laps):
                found = method.instances(raw, batch.frames)
        return Turn(wall.mark() - start, laps.milliseconds(), found)

    def encoding(self, turn: Turn) -> float:
        """Milliseconds that the run-length encoding of the first image takes."""
        wall = HostClock(self.device)
        start = wall.mark()
        turn.found[0].masks.rle()
        return wall.mark() - start


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
        here = torch.cuda.device(device) if device.type == "cuda" else nullcontext()  # events and graphs are of one GPU
        with torch.inference_mode(), here:
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
