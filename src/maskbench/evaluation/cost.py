"""What a prediction costs beside time: FLOPs and memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], object]) -> int:
    """Floating point operations of the convolutions and matrix products in `run`, a multiply-add being two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def peak_memory(run: Callable[[], object], device: torch.device) -> tuple[int | None, str]:
    """The most bytes that `run` holds at once beyond what was there before, and how that was found out.

    On a CPU the process can't be asked: the allocator keeps what was freed, and the resident size hardly moves. There
    the tensors that operators return are followed from birth to death; what a kernel needs for itself is not seen.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "torch.cuda.max_memory_allocated"
    if device.type == "cpu":
        with _LiveTensors() as live:
            run()
        return live.peak, "live tensors, operator by operator"
    return None, f"not measured on {device.type}"


class _LiveTensors(TorchDispatchMode):
    """Adds up the storages that operators allocate and that are still referenced."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What an operator is given and was not seen being made (weights, the image) was there before.
        self._meet((args, kwargs), count=False)
        out = func(*args, **(kwargs or {}))
        self._meet(out, count=True)
        self.peak = max(self.peak, self._held)
        return out

    def _meet(self, tree: Any, *, count: bool) -> None:
        for tensor in tree_leaves(tree):
            if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
                continue
            storage = tensor.untyped_storage()
            if storage._cdata in self._known:
                continue
            size = storage.nbytes() if count else 0
            self._known.add(storage._cdata)
            self._held += size
            weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._held -= size
