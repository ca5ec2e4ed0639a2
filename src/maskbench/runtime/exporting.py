"""A method's network as a file that runs without maskbench: a program of torch.export, or ONNX.

B images   H W pixels of the network's input
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from maskbench.atomic import replacing
from maskbench.errors import ConfigError, ExportError
from maskbench.methods.base import Segmenter
from maskbench.runtime.exported import Outputs, Runner, named, read

Format = Literal["torch", "onnx"]
SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}
"""Of the files, by format."""

Axis = Literal["batch", "height", "width"]
AXES: dict[Axis, int] = {"batch": 0, "height": 2, "width": 3}
"""Of the images, those that whoever runs the file may choose."""

TOLERANCE = 1e-3
"""How far an output may be off, in parts of its largest value."""

Shape = tuple[int | str, ...]
"""Numbers, and terms of the free axes."""


@dataclass(frozen=True)
class Input:
    """What the exported network takes.

    Args:
        size: height and width (None: any).
        batch: images at once (None: any number).
        divisor: height and width are multiples of it.

    Raises:
        ConfigError: one is out of its range.
    """

    size: tuple[int, ...] | None = None
    batch: int | None = None
    divisor: int = 32

    def __post_init__(self) -> None:
        size = self.size
        if size is not None and (len(size) != 2 or any(side < 1 or side % self.divisor for side in size)):
            raise ConfigError(
                f"size=[{','.join(map(str, size))}]: expected [height,width], both multiples of {self.divisor}, "
                "to which photos are padded, or null for any size"
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch={self.batch}: expected at least one image, or null for any number")

    @property
    def free(self) -> tuple[Axis, ...]:
        """The axes that are to be free."""
        fixed = {"batch": self.batch, "height": self.size, "width": self.size}
        return tuple(axis for axis in AXES if fixed[axis] is None)

    def example(self, vary: Collection[str] = ()) -> tuple[UInt8[Tensor, "B 3 H W"], Int64[Tensor, "B 2"]]:
        """Random images, and the sizes of photos a little smaller than they are; of another shape in the named axes."""
        batch, height, width = self.batch or 2, *(self.size or (4 * self.divisor, 5 * self.divisor))
        batch = 3 - batch if "batch" in vary else batch
        height, width = (5 * self.divisor, 3 * self.divisor) if "height" in vary else (height, width)
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
        return images, torch.tensor([[height - 5, width - 9]] * batch)


class Network(nn.Module):
    """What is exported of a method: bytes → its raw output, by name. Normalisation and padding are inside.

    Args:
        method: whose; a copy of it is exported, laid out in memory as every runtime has it.
    """

    def __init__(self, method: Segmenter) -> None:
        super().__init__()
        self.method = deepcopy(method).cpu().eval().to(memory_format=torch.contiguous_format)

    def forward(self, images: UInt8[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"]) -> Outputs:
        """RGB images padded right and bottom, and height and width of the photos in them → outputs."""
        rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
        inside = (rows[:, None] < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None])
        normalised = self.method.backbone.normalise(images)
        return named(self.method(torch.where(inside[:, None], normalised, 0)))


@dataclass(frozen=True)
class Exported:
    """What became of an export.

    Args:
        path: of the file.
        free: the axes that whoever runs it chooses.
        shapes: of images, sizes and each output.
        types: of each output.
        outside: parts of the method whose weights the network makes no use of, and that the file has not.
        opset: the version of ONNX's operators; None in the other format.
    """

    path: Path
    free: tuple[Axis, ...]
    shapes: Mapping[str, Shape]
    types: Mapping[str, str]
    outside: tuple[str, ...]
    opset: int | None


def export(method: Segmenter, path: Path, format: Format, given: Input) -> Exported:
    """Write the network of a method; of the axes that are to be free as many are as can be.

    Raises:
        ConfigError: what writes ONNX is not installed.
        ExportError: torch can't export the network, or not in this format.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if format == "onnx" and missing:
        raise ConfigError(f"format=onnx needs {' and '.join(missing)}: pip install 'maskbench[export]'")
    network, name = Network(method), type(method).__name__
    with torch.no_grad(), _unspoken():
        outside = _leave_out(network, given)
        program, free = _traced(network, given, name)
        outputs = network(*given.example())
        terms = _terms(program, free)
        content, opset = (_pt2(program), None) if format == "torch" else _onnx(program, outputs, terms, name)
    with replacing(path) as part:
        part.write_bytes(content)
    types = {name: str(value.dtype).removeprefix("torch.") for name, value in outputs.items()}
    return Exported(path, free, _shapes(program, outputs, terms), types, outside, opset)


def largest_difference(method: Segmenter, exported: Exported, given: Input) -> float:
    """How far outputs of the file are from the method's own at most, on random images of a shape that it has not seen.

    Raises:
        ExportError: farther than rounding explains.
    """
    example, network = given.example(vary=exported.free), Network(method)
    with torch.inference_mode():
        return _apart(network, read(exported.path), example, f"{type(method).__name__} as {exported.path.suffix}")


def _apart(network: Runner, other: Runner, example: tuple[Tensor, Tensor], what: str) -> float:
    own, found = network(*example), other(*example)
    apart = {name: float((found[name] - value).abs().max()) for name, value in own.items()}
    largest = {name: float(value.abs().max()) for name, value in own.items()}
    for name, difference in apart.items():
        if not difference <= TOLERANCE * max(TOLERANCE, largest[name]):
            raise ExportError(
                f"{what}: its output {name} is off by {difference:.2g}, where the method's own reaches "
                f"{largest[name]:.2g}; don't use it"
            )
    return max(apart.values())


# Tracing --------------------------------------------------------------------------------------------------------------


class _Touched(TorchFunctionMode):
    """Remembers which tensors are worked with."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ids |= {id(each) for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)}
        return func(*args, **(kwargs or {}))


def _leave_out(network: Network, given: Input) -> tuple[str, ...]:
    """Remove from a network the parts whose weights it makes no use of, and name them."""
    with _Touched() as touched:
        network(*given.example())
    removed = []

    def visit(module: nn.Module, path: str) -> None:
        for name, child in list(module.named_children()):
            weights = [id(weight) for weight in child.parameters()]
            if weights and touched.ids.isdisjoint(weights):
                setattr(module, name, None)
                removed.append(path + name)
            elif weights:
                visit(child, f"{path}{name}.")

    visit(network.method, "")
    return tuple(removed)


def _traced(network: Network, given: Input, name: str) -> tuple[ExportedProgram, tuple[Axis, ...]]:
    """The network as a program with as many free axes as there can be, and which they are."""
    reasons = []
    for free in _choices(given.free):
        try:
            program = torch.export.export(network, given.example(), dynamic_shapes=_dynamic(free), strict=False)
            # an axis may be bound by an assumption that no shape shows
            _apart(network, program.module(), given.example(vary=free), name)
        except Exception as error:  # torch raises errors of many kinds
            reasons.append(f"with {' and '.join(free) or 'nothing'} free: {_first_line(error)}")
            continue
        return program, free
    raise ExportError(f"the network of {name} can't be exported: {'; '.join(reasons)}")


def _choices(free: Collection[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Which axes may be free, from all that are asked for to none."""
    choices: tuple[tuple[Axis, ...], ...] = (("batch", "height", "width"), ("height", "width"), ("batch",), ())
    yield from (choice for choice in choices if set(choice) <= set(free))


def _dynamic(free: Collection[Axis]) -> dict[str, dict[int, Any]]:
    """What torch is told of the axes of images and sizes."""
    batch = {0: Dim("batch", min=1)} if "batch" in free else {}
    return {"images": batch | {AXES[axis]: Dim.AUTO for axis in free if axis != "batch"}, "sizes": batch}


@contextmanager
def _unspoken() -> Iterator[None]:
    """What torch's exporters think of torch and of ONNX's library tells nobody anything here."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


# Writing --------------------------------------------------------------------------------------------------------------


def _terms(program: ExportedProgram, free: Collection[Axis]) -> dict[str, str]:
    """The names of the free axes by what torch calls them."""
    (images,) = (
        node.meta["val"] for node in program.graph.nodes if node.name == program.graph_signature.user_inputs[0]
    )
    return {str(images.shape[AXES[axis]]): axis for axis in free}


def _shapes(program: ExportedProgram, outputs: Collection[str], terms: Mapping[str, str]) -> dict[str, Shape]:
    """Of images, sizes and outputs, by name."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    names = dict(zip(("images", "sizes", *outputs), (*signature.user_inputs, *signature.user_outputs), strict=True))
    return {name: tuple(_term(side, terms) for side in values[str(node)].shape) for name, node in names.items()}


def _term(side: Any, terms: Mapping[str, str]) -> int | str:
    """A number, or what torch calls a free axis, by its own name."""
    return side if isinstance(side, int) else re.sub(r"\bs\d+\b", lambda symbol: terms[symbol[0]], str(side))


def _pt2(program: ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx(program: ExportedProgram, outputs: Collection[str], terms: Mapping[Any, str], name: str) -> tuple[bytes, int]:
    """The bytes of the file, and the version of its operators."""
    try:
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, input_names=["images", "sizes"], output_names=list(outputs)
        )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ExportError(
            f"the network of {name} can't be exported as ONNX: {_first_line(cause)}; format=torch may do, or another "
            "part of the method in the place of the one that needs this"
        ) from error
    assert made is not None
    made.rename_axes({**terms})  # a copy: keys of other types are allowed too
    return made.model_proto.SerializeToString(), made.model.opset_imports[""]
