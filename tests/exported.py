"""A method that is exported and held to itself: what numbers come out, and what instances are read from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jaxtyping
import torch

from maskbench.methods.base import Segmenter
from maskbench.runtime.exported import named, read, restored
from maskbench.runtime.exporting import SUFFIXES, Exported, Format, Input, export, largest_difference
from maskbench.structures import Batch, Instances


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Free axes have no size that a signature could be held to."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def exported_alike(method: Segmenter, batch: Batch, format: Format, folder: Path, given: Input) -> Exported:
    """Export a method that finds something in a batch; it is left as it was, and the file has to come to the same."""
    weights = {name: (value.clone(), value.stride()) for name, value in method.state_dict().items()}
    path = folder / f"network{SUFFIXES[format]}"
    with unchecked_shapes():
        exported = export(method, path, format, given)
        assert exported.free == given.free
        assert largest_difference(method, exported, given) < 1e-3
    for name, (value, stride) in weights.items():
        assert torch.equal(method.state_dict()[name], value)
        assert method.state_dict()[name].stride() == stride
    sizes = torch.tensor([frame.resized for frame in batch.frames])
    with torch.inference_mode():
        raw = method(method.prepare(batch))
        outputs = read(path)(batch.images, sizes)
        assert list(exported.shapes) == ["images", "sizes", *named(raw)]
        for name, value in named(raw).items():
            torch.testing.assert_close(outputs[name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()))
        found = method.instances(restored(outputs, like=raw), batch.frames)
        for again, wanted in zip(found, method.instances(raw, batch.frames), strict=True):
            assert_same_instances(again, wanted)
    return exported


def assert_same_instances(found: Instances, wanted: Instances) -> None:
    """The same but for rounding, which may turn a pixel."""
    assert len(found) == len(wanted) > 0
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-3, atol=1e-4)
    assert (found.labels == wanted.labels).float().mean() > 0.95
    assert (found.masks.dense() != wanted.masks.dense()).float().mean() < 0.01
