"""How long a user waits: images in host memory → every mask at photo size on the device.

One batch at a time (of one image unless asked otherwise), weights in place. The phases:

    prepare     bytes to the device, normalisation
    backbone    backbone and neck
    heads       what runs on whole maps or on regions
    selection   proposals, candidates painted and compared, NMS, clustering
    masks       masks at photo size

A network that is compiled or recorded is one phase, `network`, in place of the backbone and of heads on whole maps.
Run-length encoding comes after it and is timed apart. Contenders take turns batch by batch, so that a machine that
drifts drifts for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np
import torch

from maskbench.errors import ConfigError
from maskbench.evaluation.cost import count_flops, peak_memory
from maskbench.evaluation.machine import Company, device_name, library_versions
from maskbench.evaluation.precision import precision_name
from maskbench.evaluation.stopwatch import Contender, Entrant, Rig, ready, warm_up
from maskbench.structures import Batch


@dataclass(frozen=True)
class Speed:
    """What `measure` found out about one contender. Times are milliseconds.

    Attributes:
        latency_ms: median over the batches, from host memory to the last mask.
        p95_ms: the latency that 95 % of the batches keep.
        mean_ms: mean over the batches.
        fps: images a second, 1000 · `batch` / `latency_ms`.
        phases: mean of each phase. On a CPU they sum to `mean_ms`; on a GPU they are told by its own clock and sum to a
            little less.
        rle_ms: median of the run-length encoding of a batch's first image, which follows and is in none of the above.
        batch: images of a batch.
        execution: how the network is run, `eager`, `compiled` or replayed as a CUDA `graph`.
        images: images timed; `photos` of them are different ones.
        encoded: images whose masks came encoded already, since dense they are too large: there the phase `masks` has
            the encoding in it.
        samples: (instances found, latency) of each batch, in order.
        input_sizes: (height, width) of the network inputs, each once.
        warm_up: predictions before the clock counted; `steady` says if the last ones agreed.
        memory_mb: peak of one prediction of the largest batch, operator by operator, weights included, in 10^6 bytes;
            null if unknown.
        memory_source: how it was found out.
        parameters: learned numbers.
        flops: of one prediction of the batch of median size, whose first image is `flops_image` and in which
            `flops_instances` were found; a multiply-add counts two.
        load_average: of the machine at the start, over the last minute.
        other_cores: cores that other processes kept busy meanwhile; null if unknown.
        loaded: others used the machine, so that the times are not to be trusted.
    """

    latency_ms: float
    p95_ms: float
    mean_ms: float
    fps: float
    phases: dict[str, float]
    rle_ms: float
    batch: int
    execution: str
    images: int
    photos: int
    encoded: int
    samples: tuple[tuple[int, float], ...]
    input_sizes: tuple[tuple[int, int], ...]
    warm_up: int
    steady: bool
    memory_mb: float | None
    memory_source: str
    parameters: int
    flops: int
    flops_image: int
    flops_instances: int
    device: str
    device_name: str
    precision: str
    threads: int
    versions: dict[str, str]
    load_average: float
    other_cores: float | None
    loaded: bool

    @property
    def label(self) -> str:
        """What a row of this speed is called beside others of the same method."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.device_name}, {threads}, {self.precision}, {self.batch} a batch, {self.execution}"

    def as_dict(self) -> dict[str, Any]:
        """The content of speed.json."""
        return asdict(self)


class Timed(NamedTuple):
    """What is kept of a turn, without its masks. Milliseconds."""

    latency: float
    phases: dict[str, float]
    rle: float
    found: int
    encoded: int


def measure(
    contenders: Mapping[str, Contender],
    batches: Sequence[Batch],
    *,
    device: torch.device | str,
    precision: str | int = "32-true",
    execution: str = "eager",
    threads: int = 1,
    images: int = 50,
) -> dict[str, Speed]:
    """Time contenders against each other, turn by turn on the same images.

    Training modes and the number of threads are afterwards what they were; the contenders stay on `device`.

    Args:
        contenders: methods by name.
        batches: in host memory, as the evaluation pipeline makes them, all of as many images; targets are not read.
        device: where to predict.
        precision: "32-true", "16-mixed" or "bf16-mixed"; 32 is the first of them.
        execution: how the networks are run.
        threads: of the host.
        images: how many are timed at the least; batches are gone through again until there are as many.

    Raises:
        ConfigError: nothing to time, an unknown precision or execution, or batches of different numbers of images.
    """
    _check(contenders, batches, images)
    rig = Rig(torch.device(device), precision_name(precision), execution)
    by_size = sorted(batches, key=lambda batch: (batch.images[0].numel(), batch.frames[0].photo))
    typical, largest = by_size[len(by_size) // 2], by_size[-1]
    times: dict[str, list[Timed]] = {name: [] for name in contenders}
    with ready(contenders.values(), rig.device, threads):
        company = Company()
        entrants = {name: rig.entrant(method) for name, method in contenders.items()}
        warm_ups = {name: _warmed(rig, entrant, by_size) for name, entrant in entrants.items()}
        turns = -(-images // len(typical))
        for batch in islice(cycle(batches), turns):
            for name, entrant in entrants.items():
                times[name].append(_timed(rig, entrant, batch))
        machine = _machine(rig, threads, company)
        costs = {name: _costs(rig, method, typical, largest) for name, method in contenders.items()}
    shared = {
        "batch": len(typical),
        "photos": min(len(batches), turns) * len(typical),
        "input_sizes": tuple(sorted({tuple(batch.images.shape[-2:]) for batch in batches[:turns]})),
        **machine,
    }
    return {
        name: Speed(**_summary(times[name], len(typical)), **warm_ups[name], **costs[name], **shared)
        for name in contenders
    }


def _timed(rig: Rig, entrant: Entrant, batch: Batch) -> Timed:
    """One turn; its masks are gone when the next begins."""
    turn = rig.time(entrant, batch)
    found = sum(len(image) for image in turn.found)
    encoded = sum(not image.masks.is_dense for image in turn.found)
    return Timed(turn.latency, turn.phases, rig.encoding(turn), found, encoded)


def _check(contenders: Mapping[str, Contender], batches: Sequence[Batch], images: int) -> None:
    if not contenders or not batches or images < 1:
        raise ConfigError(
            f"speed takes a contender, an image and a turn at least, found {len(contenders)} contenders, "
            f"{len(batches)} batches and images={images}"
        )
    sizes = {len(batch) for batch in batches}
    if len(sizes) > 1:
        raise ConfigError(f"speed is measured on batches of as many images each, found batches of {sorted(sizes)}")


def _warmed(rig: Rig, entrant: Entrant, by_size: Sequence[Batch]) -> dict[str, Any]:
    """Predict until steady; what is compiled or recorded has seen every size before."""
    if rig.execution != "eager":
        for batch in {batch.images.shape: batch for batch in by_size}.values():
            rig.predict(entrant, batch)
    return warm_up(partial(rig.time, entrant, by_size[-1]))


def _summary(turns: Sequence[Timed], batch: int) -> dict[str, Any]:
    latencies = [turn.latency for turn in turns]
    phases = list(dict.fromkeys(phase for turn in turns for phase in turn.phases))
    return {
        "latency_ms": median(latencies),
        "p95_ms": float(np.percentile(latencies, 95)),
        "mean_ms": fmean(latencies),
        "fps": 1000 * batch / median(latencies),
        "phases": {phase: fmean(turn.phases.get(phase, 0.0) for turn in turns) for phase in phases},
        "rle_ms": median(turn.rle for turn in turns),
        "images": batch * len(turns),
        "encoded": sum(turn.encoded for turn in turns),
        "samples": tuple((turn.found, turn.latency) for turn in turns),
    }


def _costs(rig: Rig, method: Contender, typical: Batch, largest: Batch) -> dict[str, Any]:
    plain = Entrant(method, method)  # neither a compiled network nor a graph shows what it does and holds
    memory, source = peak_memory(lambda: rig.predict(plain, largest), rig.device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*method.parameters(), *method.buffers()))
    return {
        "memory_mb": None if memory is None else (memory + weights) / 1e6,
        "memory_source": source,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "flops": count_flops(lambda: rig.predict(plain, typical)),
        "flops_image": typical.frames[0].image_id,
        "flops_instances": sum(len(found) for found in rig.predict(plain, typical)),
    }


def _machine(rig: Rig, threads: int, company: Company) -> dict[str, Any]:
    others = company.other_cores()
    return {
        "device": str(rig.device),
        "device_name": device_name(rig.device),
        "precision": rig.precision,
        "execution": rig.execution,
        "threads": threads,
        "versions": library_versions(),
        "load_average": company.load_average,
        "other_cores": others,
        "loaded": company.load_average > threads + 0.5 if others is None else others > 0.5,
    }
