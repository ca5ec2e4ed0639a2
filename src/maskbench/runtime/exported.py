"""A network that was exported, read back: its outputs by name, and the raw output that its method reads.

B images   H W pixels of the network's input
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from maskbench.errors import ExportError

Outputs = dict[str, Tensor]
"""The tensors of a raw output by the names of its fields; those in a list are numbered: `features.0`."""

Runner = Callable[[UInt8[Tensor, "B 3 H W"], Int64[Tensor, "B 2"]], Outputs]
"""Images and the sizes of the photos in them → outputs."""

RUNTIME = "onnxruntime"


def named(raw: Any, name: str = "") -> Outputs:
    """The tensors of a method's raw output, in their order.

    Raises:
        ExportError: it is made of other things than named tuples, lists and tensors.
    """
    if isinstance(raw, Tensor):
        return {name: raw}
    return {path: tensor for field, part in _parts(raw, name) for path, tensor in named(part, field).items()}


def restored(outputs: Mapping[str, Tensor], like: Any, name: str = "") -> Any:
    """Named tensors as the raw output that they are of, which `like` has the form of: any that the method has made."""
    if isinstance(like, Tensor):
        return outputs[name]
    parts = [restored(outputs, part, field) for field, part in _parts(like, name)]
    if like is None:
        return None
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _parts(raw: Any, name: str) -> list[tuple[str, Any]]:
    """The name and the value of everything that a raw output, or a part of one, is made of."""
    if raw is None:
        return []
    if not isinstance(raw, list | tuple):
        raise ExportError(
            f"the raw output has a {type(raw).__name__}{f' as {name}' if name else ''}: "
            "expected tensors, lists and named tuples, which can be told by name"
        )
    fields = getattr(raw, "_fields", range(len(raw)))
    return [(f"{name}.{field}".lstrip("."), part) for field, part in zip(fields, raw, strict=True)]


def can_run(path: Path) -> bool:
    """Whether what is needed to run this file is installed."""
    return path.suffix != ".onnx" or importlib.util.find_spec(RUNTIME) is not None


def read(path: Path) -> Runner:
    """The network of a file that was exported, on the CPU: a .pt2 runs in torch, an .onnx in onnxruntime."""
    return _read_onnx(path) if path.suffix == ".onnx" else torch.export.load(path).module()


def _read_onnx(path: Path) -> Runner:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor, sizes: Tensor) -> Outputs:
        found = session.run(names, {"images": images.numpy(), "sizes": sizes.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run
