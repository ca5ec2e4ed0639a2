"""How a network is run: operator by operator, recorded once as a CUDA graph and replayed, or compiled first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskbench.errors import ConfigError

Network = Callable[[Tensor], Any]
EXECUTIONS = ("eager", "graph", "compiled")

OPTIONS: dict[str, Any] = {"freezing": True, "triton.cudagraphs": False}
"""Of the compiler: weights become constants, and graphs are recorded by `Replayed`."""
SIZES = 256
"""Input sizes that a network is compiled for at the most; one more raises."""
REHEARSALS = 3
"""Runs before a recording, in which libraries choose their algorithms and allocate."""


def executed(network: Network, execution: str, device: torch.device) -> Network:
    """The network run in this way, for inference.

    Args:
        network: images → raw output.
        execution: "eager": operator by operator. "graph": recorded and replayed, on a GPU alone. "compiled": with its
            weights as constants, as they are now, anew for each size of its input; on a GPU what was compiled is
            recorded too.
        device: where it is.

    Raises:
        ConfigError: there is no such way, or none on this device.
    """
    require_execution(execution, device)
    if execution == "compiled":
        network = Compiled(network)
    return Replayed(network) if execution != "eager" and device.type == "cuda" else network


def require_execution(execution: str, device: torch.device) -> None:
    """Raise `ConfigError` where there is no such way to run a network, or none on this device."""
    if execution not in EXECUTIONS:
        raise ConfigError(f"execution={execution}: expected one of {', '.join(EXECUTIONS)}")
    if execution == "graph" and device.type != "cuda":
        raise ConfigError(f"execution=graph records a CUDA graph, but the device is {device}: take eager or compiled")


class Compiled:
    """A network that is compiled anew for each size of its input, its weights being constants."""

    def __init__(self, network: Network) -> None:
        torch.compiler.reset()  # what was compiled before counts towards the limit
        self._network = torch.compile(network, dynamic=False, options=OPTIONS)

    def __call__(self, images: Tensor) -> Any:
        # beyond its own limit, eight, the compiler would say nothing and run operator by operator
        with torch._dynamo.config.patch(recompile_limit=SIZES, fail_on_recompile_limit_hit=True):
            return self._network(images)


class Recording(NamedTuple):
    """A graph, the memory that it reads and the memory that it writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    output: Any


class Replayed:
    """A network whose kernels are recorded once for each size and precision and then started all at once.

    A network of small images spends more time on telling the GPU what to do than the GPU does on doing it. What comes
    out is overwritten by the next call. Inference alone.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._recordings: dict[tuple[torch.Size, torch.dtype | None], Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()  # one for all: only the last output is still read

    def __call__(self, images: Tensor) -> Any:
        cast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        recording = self._recordings.get((images.shape, cast))
        if recording is None:
            recording = self._recordings[images.shape, cast] = self._record(images, cast)
        recording.images.copy_(images)
        recording.graph.replay()
        return recording.output

    def _record(self, images: Tensor, cast: torch.dtype | None) -> Recording:
        given = images.clone()
        # weights that autocast has cast and kept would be gone at the first replay
        precise = torch.autocast("cuda", dtype=cast, enabled=cast is not None, cache_enabled=False)
        graph, aside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with precise, torch.cuda.stream(aside):
            for _ in range(REHEARSALS):
                self._network(given)
        torch.cuda.current_stream().wait_stream(aside)
        with precise, torch.cuda.graph(graph, pool=self._pool):
            output = self._network(given)
        return Recording(graph, given, output)
