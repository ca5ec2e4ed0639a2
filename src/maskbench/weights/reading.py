"""Files of weights → tensors by name. Nothing in a file is executed: what is neither tensor nor plain is refused."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from maskbench.atomic import require_whole
from maskbench.errors import WeightsError
from maskbench.weights.arrays import Array, DType, begin, scalar

WRAPPERS = ("state_dict", "model", "model_state")
"""Keys below which a checkpoint has its weights, beside the state of the optimiser and the like."""

DROPPED = re.compile(r"ema_|_ema\.|.*\.num_batches_tracked$")
"""Names of what is no weight of the network: averages kept beside it, and counters that change no result."""


class Source(NamedTuple):
    """A checkpoint's weights, and the names of its classes where it tells them."""

    weights: dict[str, Tensor]
    classes: tuple[str, ...] | None


def read(path: str | Path) -> Source:
    """The weights in a `.safetensors` file, a `.pkl` of detectron2 or whatever else torch can load.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds something that is neither a tensor nor plain.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        content = _content(path)
        return Source(unwrap(content), _classes(content))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except Exception as error:  # pickle, zip, torch and safetensors raise errors of their own on a damaged file
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(f"{path}: {_refusal(found[1])}") from None
        reason = str(error).splitlines()[0] if str(error) else ""
        raise WeightsError(f"{path}: not readable as weights ({type(error).__name__}: {reason})") from error


def unwrap(content: Any) -> dict[str, Tensor]:
    """The weights of a checkpoint's content, by name, in 32 bits, without wrappers, averages and counters.

    Raises:
        WeightsError: an entry is no array.
    """
    while wrapper := next((name for name in WRAPPERS if _holds(content, name)), None):
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise WeightsError(f"expected weights by name, found {type(content).__name__}")
    state = {str(name): value for name, value in content.items()}
    if state and all(name.startswith("module.") for name in state):  # of a model on several devices
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return {name: _tensor(name, value) for name, value in state.items() if not DROPPED.match(name)}


def _holds(content: Any, name: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(name), Mapping)


def _tensor(name: str, value: Any) -> Tensor:
    value = value.found if isinstance(value, Array) and hasattr(value, "found") else value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        native = value.astype(value.dtype.newbyteorder("="))  # a copy: what is unpickled may not be written to
        value = torch.from_numpy(native)
    if not isinstance(value, Tensor):
        raise WeightsError(f"{name} is of type {type(value).__name__}, expected a tensor or a numeric array")
    return value.detach().float() if value.is_floating_point() else value.detach()


def _classes(content: Any) -> tuple[str, ...] | None:
    """As MMDetection notes them, in one of three places."""
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping):
        return None
    told: Any = meta["dataset_meta"] if _holds(meta, "dataset_meta") else meta
    names = told.get("classes") or told.get("CLASSES")
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None


# Without executing anything ------------------------------------------------------------------------------------------


class _Ignored:
    """Stands for an object of somebody else's class that is no weight, such as MMEngine's log."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


def _decoded(text: str, encoding: str) -> bytes:
    """What numpy's arrays of Python 2 ask `_codecs.encode` for."""
    if encoding != "latin1":
        raise WeightsError(f"holds text in {encoding!r}, expected latin1")
    return text.encode("latin1")


PLAIN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _decoded,
    "numpy.ndarray": Array,
    "numpy.dtype": DType,
    **{f"numpy.{core}.multiarray._reconstruct": begin for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
}
"""All that a pickle may ask for by name, numpy's arrays before all."""


class _Bounded(io.BufferedReader):
    """A file that reserves no memory for more than it has, whatever is asked of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


class _Unpickler(pickle._Unpickler):
    """The one in Python: that in C reserves as much memory as a damaged number asks for."""

    def find_class(self, module: str, name: str) -> Any:
        found = PLAIN.get(f"{module}.{name}")
        if found is None:
            raise WeightsError(_refusal(f"{module}.{name}"))
        return found


def _refusal(name: str) -> str:
    return (
        f"holds {name}, which is neither a tensor nor a plain value, and is not executed. If you trust the file, save "
        "its weights alone where it was made: torch.save({'state_dict': model.state_dict()}, FILE)"
    )


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".pkl":
        with path.open("rb", buffering=0) as raw, _Bounded(raw) as file:
            return _unpickled(file)
    named: list[Any] = [(value, name) for name, value in PLAIN.items() if name != "collections.OrderedDict"]
    named.append((_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"))
    require_whole(path)
    with torch.serialization.safe_globals(named):
        return torch.load(path, map_location="cpu", weights_only=True)


def _unpickled(file: BinaryIO) -> Any:
    """Arrays and plain values alone; names that Python 2 wrote are latin1."""
    return _Unpickler(file, encoding="latin1").load()
