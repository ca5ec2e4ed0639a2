"""How long a user waits: an image in host memory → every mask at photo size on the device.

One image at a time, weights in place, the device synchronised around each phase:

    prepare     bytes to the device, normalisation
    network     forward
    instances   selection (NMS, Matrix NMS or clustering) and masks at photo size

Run-length encoding comes after it and is timed apart. Contenders take turns image by image, so that a machine that
drifts drifts for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np
import torch

from maskbench.errors import ConfigError
from maskbench.evaluation.cost import count_flops, peak_memory
from maskbench.evaluation.machine import Company, device_name, library_versions
from maskbench.evaluation.precision import precision_name
from maskbench.evaluation.stopwatch import Contender, Rig, Turn, ready, warm_up
from maskbench.structures import Batch


@dataclass(frozen=True)
class Speed:
    """What `measure` found out about one contender. Times are milliseconds.

    Attributes:
        latency_ms: median of prepare + network + instances.
        p95_ms: the latency that 95 % of the images keep.
        fps: images a second one by one, 1000 / `latency_ms`.
        phases: median of each phase.
        rle_ms: median of the run-length encoding that follows and is in none of the above.
        images: images timed; `photos` of them are different ones.
        encoded: images whose masks came encoded already, since dense they are too large: there the phase `instances`
            has the encoding in it.
        samples: (instances found, latency) of each image, in order.
        input_sizes: (height, width) of the network inputs, each once.
        warm_up: predictions before the clock counted; `steady` says if the last ones agreed.
        memory_mb: peak of one prediction of the largest image, weights included, in 10^6 bytes; null if unknown.
        memory_source: how it was found out.
        parameters: learned numbers.
        flops: of one prediction of the image `flops_image`, of median size, where `flops_instances` were found; a
            multiply-add counts two.
        load_average: of the machine at the start, over the last minute.
        other_cores: cores that other processes kept busy meanwhile; null if unknown.
        loaded: others used the machine, so that the times are not to be trusted.
    """

    latency_ms: float
    p95_ms: float
    fps: float
    phases: dict[str, float]
    rle_ms: float
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

    def as_dict(self) -> dict[str, Any]:
        """The content of speed.json."""
        return asdict(self)


def measure(
    contenders: Mapping[str, Contender],
    batches: Sequence[Batch],
    *,
    device: torch.device | str,
    precision: str | int = "32-true",
    threads: int = 1,
    images: int = 50,
) -> dict[str, Speed]:
    """Time contenders against each other, turn by turn on the same images.

    Training modes and the number of threads are afterwards what they were; the contenders stay on `device`.

    Args:
        contenders: methods by name.
        batches: single images in host memory, as the evaluation pipeline makes them; targets are not read.
        device: where to predict.
        precision: "32-true", "16-mixed" or "bf16-mixed"; 32 is the first of them.
        threads: of the host.
        images: how many are timed; batches are gone through again until there are as many.

    Raises:
        ConfigError: nothing to time, an unknown precision, or batches of several images.
    """
    _check(contenders, batches, images)
    rig = Rig(torch.device(device), precision_name(precision))
    by_size = sorted(batches, key=lambda batch: (batch.images[0].numel(), batch.frames[0].photo))
    typical, largest = by_size[len(by_size) // 2], by_size[-1]
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    with ready(contenders.values(), rig.device, threads):
        company = Company()
        warm_ups = {name: warm_up(partial(rig.time, method, largest)) for name, method in contenders.items()}
        for batch in islice(cycle(batches), images):
            for name, method in contenders.items():
                turns[name].append(rig.time(method, batch))
        conditions = _conditions(rig.device, rig.precision, threads, company)
        costs = {name: _costs(rig, method, typical, largest) for name, method in contenders.items()}
    shared = {
        "photos": min(len(batches), images),
        "input_sizes": tuple(sorted({tuple(batch.images.shape[-2:]) for batch in batches[:images]})),
        **conditions,
    }
    return {name: Speed(**_times(turns[name]), **warm_ups[name], **costs[name], **shared) for name in contenders}


def _check(contenders: Mapping[str, Contender], batches: Sequence[Batch], images: int) -> None:
    if not contenders or not batches or images < 1:
        raise ConfigError(
            f"speed takes a contender, an image and a turn at least, found {len(contenders)} contenders, "
            f"{len(batches)} batches and images={images}"
        )
    sizes = {len(batch) for batch in batches}
    if sizes != {1}:
        raise ConfigError(f"speed is measured image by image, found batches of {sorted(sizes)}: load them with batch 1")


def _times(turns: Sequence[Turn]) -> dict[str, Any]:
    latencies = [turn.latency for turn in turns]
    return {
        "latency_ms": median(latencies),
        "p95_ms": float(np.percentile(latencies, 95)),
        "fps": 1000 / median(latencies),
        "phases": {phase: median(turn.phases[phase] for turn in turns) for phase in turns[0].phases},
        "rle_ms": median(turn.rle for turn in turns),
        "images": len(turns),
        "encoded": sum(turn.encoded for turn in turns),
        "samples": tuple((turn.found, turn.latency) for turn in turns),
    }


def _costs(rig: Rig, method: Contender, typical: Batch, largest: Batch) -> dict[str, Any]:
    memory, source = peak_memory(lambda: rig.predict(method, largest), rig.device)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in (*method.parameters(), *method.buffers()))
    return {
        "memory_mb": None if memory is None else (memory + weights) / 1e6,
        "memory_source": source,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "flops": count_flops(lambda: rig.predict(method, typical)),
        "flops_image": typical.frames[0].image_id,
        "flops_instances": len(rig.predict(method, typical)),
    }


def _conditions(device: torch.device, precision: str, threads: int, company: Company) -> dict[str, Any]:
    others = company.other_cores()
    return {
        "device": str(device),
        "device_name": device_name(device),
        "precision": precision,
        "threads": threads,
        "versions": library_versions(),
        "load_average": company.load_average,
        "other_cores": others,
        "loaded": company.load_average > threads + 0.5 if others is None else others > 0.5,
    }
