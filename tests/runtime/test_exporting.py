from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from exported import exported_alike
from maskbench.errors import ConfigError, ExportError
from maskbench.methods.base import Segmenter
from maskbench.runtime import exporting
from maskbench.runtime.compose import build_method, composed
from maskbench.runtime.exported import named, restored
from maskbench.runtime.exporting import Input, Network, export, largest_difference
from maskbench.structures import Batch, Frame, Instances


class Head(NamedTuple):
    logits: list[Tensor]
    extra: Tensor | None


class Raw(NamedTuple):
    features: Tensor
    head: Head


def build(name: str, *overrides: str) -> Segmenter:
    return build_method(composed("train", [f"method=small/{name}", "backbone=tiny", *overrides]), ("a", "b")).eval()


def noise(*sizes: tuple[int, int]) -> Batch:
    """Photos of noise, padded to 128 × 160."""
    images = torch.randint(0, 256, (len(sizes), 3, 128, 160), dtype=torch.uint8)
    frames = tuple(Frame(number, size, size) for number, size in enumerate(sizes))
    return Batch(images, tuple(Instances.empty((128, 160)) for _ in sizes), frames)


def test_a_raw_output_is_told_by_the_names_of_its_fields_and_restored() -> None:
    raw = Raw(torch.zeros(1), Head([torch.ones(2), torch.ones(3)], None))
    outputs = named(raw)
    assert {name: len(value) for name, value in outputs.items()} == {
        "features": 1,
        "head.logits.0": 2,
        "head.logits.1": 3,
    }
    again = restored({name: 2 * value for name, value in outputs.items()}, like=raw)
    assert isinstance(again, Raw)
    assert isinstance(again.head, Head)
    assert again.head.extra is None
    assert again.head.logits[1].tolist() == [2, 2, 2]
    with pytest.raises(
        ExportError, match="the raw output has a dict as head: expected tensors, lists and named tuples"
    ):
        named(Raw(torch.zeros(1), {"logits": torch.ones(1)}))  # type: ignore[arg-type]


def test_what_lies_outside_of_a_photo_is_zero_as_in_prediction() -> None:
    method, batch = build("semantic"), noise((100, 90), (128, 160))
    seen = []
    network = Network(method)
    network.method.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    network(batch.images, torch.tensor([frame.resized for frame in batch.frames]))
    assert torch.equal(seen[0], method.prepare(batch))


# One of each paradigm; tests/methods/test_contract.py holds every method to it, in both formats and at any size. A
# two-stage network in ONNX is quick: tests/test_export.py has one.
@pytest.mark.slow
def test_a_two_stage_network_and_what_it_leaves_out(tmp_path: Path) -> None:
    method, given = build("mask_rcnn"), Input((128, 160), batch=1)
    exported = exported_alike(method, noise((100, 90)), "torch", tmp_path, given)
    assert exported.outside == ("box_head", "mask_head")
    assert exported.opset is None
    kept = torch.export.load(exported.path).state_dict
    assert kept
    assert not [name for name in kept if "box_head" in name or "mask_head" in name]


def test_a_one_stage_network_for_any_number_of_images(tmp_path: Path) -> None:
    batch = noise((100, 90), (128, 160), (128, 60))
    exported = exported_alike(build("solov2"), batch, "torch", tmp_path, Input((128, 160)))
    assert exported.shapes["features"] == ("batch", 48, 32, 40)
    assert exported.outside == ()


@pytest.mark.slow
def test_a_bottom_up_network_in_onnx(tmp_path: Path) -> None:
    import onnx

    given = Input((128, 160), batch=1)
    exported = exported_alike(build("semantic"), noise((100, 90)), "onnx", tmp_path, given)
    assert exported.shapes["images"] == (1, 3, 128, 160)
    graph = onnx.load(exported.path)
    assert exported.opset == graph.opset_import[0].version
    for value in graph.graph.output:
        assert tuple(side.dim_value for side in value.type.tensor_type.shape.dim) == exported.shapes[value.name]


@pytest.mark.slow
def test_a_network_of_any_size_and_a_method_that_differs_from_it(tmp_path: Path) -> None:
    method = build("semantic")
    exported = exported_alike(method, noise((128, 160), (100, 90)), "torch", tmp_path, Input())
    assert exported.shapes["images"] == ("batch", 3, "height", "width")
    assert exported.shapes["sizes"] == ("batch", 2)
    batch, channels, height, width = exported.shapes["semantic"]
    assert (batch, channels) == ("batch", 3)
    assert eval(str(height), {"height": 256}) == 64
    assert eval(str(width), {"width": 320}) == 80
    with torch.no_grad():
        method.classify.bias += 0.5
    with pytest.raises(
        ExportError, match=r"Semantic as \.pt2: its output semantic is off by 0\.5, where the method's own"
    ):
        largest_difference(method, exported, Input())


class Bound(Network):
    """A network that counts the images of a batch in Python, which makes a constant of their number."""

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        return {"brightness": images.float().mean(dim=(1, 2, 3)) + torch.zeros(len(images)).sum()}


def test_an_axis_that_can_not_be_free_is_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "Network", Bound)
    exported = export(build("semantic"), tmp_path / "network.pt2", "torch", Input())
    assert exported.free == ("height", "width")
    assert exported.shapes["images"] == (2, 3, "height", "width")
    assert exported.outside == ("backbone", "decoder", "classify")


class Choosy(Network):
    """A network that goes one way or another, as the images are."""

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        return {"sizes": sizes + 1 if bool(images.sum() > 0) else sizes}


def test_a_network_that_chooses_by_what_it_sees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "Network", Choosy)
    with pytest.raises(
        ExportError, match=r"the network of Semantic can't be exported: with batch and height and width"
    ):
        export(build("semantic"), tmp_path / "network.pt2", "torch", Input())


class Odd(Network):
    """A network with an operator that nobody has written down in ONNX's."""

    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        return {"waves": torch.special.bessel_j0(sizes.float())}


def test_an_operator_that_onnx_has_not_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "Network", Odd)
    method, given = build("semantic"), Input((64, 64), batch=1)
    with pytest.raises(ExportError, match=r"Semantic can't be exported as ONNX: .*bessel_j0.*; format=torch may do"):
        export(method, tmp_path / "network.onnx", "onnx", given)
    assert not (tmp_path / "network.onnx").exists()
    assert export(method, tmp_path / "network.pt2", "torch", given).path.exists()


def test_without_what_writes_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"format=onnx needs onnx and onnxscript: pip install 'maskbench\[export\]'"):
        export(build("semantic"), tmp_path / "network.onnx", "onnx", Input())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": (100, 64)}, r"size=\[100,64\]: expected \[height,width\], both multiples of 32"),
        ({"size": (64,)}, r"size=\[64\]: expected \[height,width\]"),
        ({"size": (0, 64)}, r"size=\[0,64\]: expected"),
        ({"batch": 0}, r"batch=0: expected at least one image"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Input(**settings)
