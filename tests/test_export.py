from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from converted import weights
from exported import unchecked_shapes
from maskbench import __version__
from maskbench.errors import ConfigError, ExportError
from maskbench.export import export
from maskbench.methods.base import Segmenter
from maskbench.runtime import exported as reading
from maskbench.runtime import exporting
from trained import call, run

__all__ = ["run", "weights"]


def test_what_is_written_of_a_checkpoint(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "for the box" / "netz.onnx"
    with unchecked_shapes():
        found = call(export, f"weights={weights}", f"out='{out}'", "size=[96,128]", "batch=1")
    assert json.loads(json.dumps(found)) == found
    assert found["outside"] == ["box_head", "mask_head"]
    assert found["free"] == []
    assert found["images"] == [1, 3, 96, 128]
    assert 0 <= found["largest_difference"] < 1e-3
    told = capsys.readouterr().err.replace("\n", " ")
    assert "computes what the method does" in told
    assert "not in it are box_head, mask_head" in told
    notes = json.loads((out.parent / "netz.json").read_text())
    assert notes["maskbench"] == __version__
    assert (notes["method"], notes["format"], notes["precision"]) == ("MaskRCNN", "onnx", "float32")
    assert (notes["classes"], notes["category_ids"]) == (["disc", "rectangle", "triangle"], [1, 2, 3])
    assert notes["inputs"]["images"]["resize"] == {"short": 64, "long": 128}
    assert notes["inputs"]["images"]["height_and_width"] == {"multiples_of": 32}
    assert notes["normalisation"]["mean"] == pytest.approx([123.675, 116.28, 103.53], abs=0.01)
    assert notes["outside"]["function"] == "maskbench.methods.mask_rcnn.MaskRCNN.instances"
    assert notes["largest_difference"] == found["largest_difference"]
    # without maskbench: the notes say what goes in and what comes out
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    given = {
        each.name: torch.zeros(
            notes["inputs"][each.name]["shape"], dtype=getattr(torch, notes["inputs"][each.name]["type"])
        )
        for each in session.get_inputs()
    }
    values = session.run(list(notes["outputs"]), {name: value.numpy() for name, value in given.items()})
    for value, output in zip(values, notes["outputs"].values(), strict=True):
        assert (list(value.shape), str(value.dtype)) == (output["shape"], output["type"])
    assert found["outputs"] == list(notes["outputs"])


@pytest.mark.slow
def test_a_run_at_any_size(run: Path, tmp_path: Path) -> None:
    with unchecked_shapes():
        found = call(export, f"run={run}", f"out={tmp_path}/network.pt2", "format=torch")
    assert found["free"] == ["batch", "height", "width"]
    notes = json.loads((tmp_path / "network.json").read_text())
    assert notes["inputs"]["images"]["shape"] == ["batch", 3, "height", "width"]
    assert notes["inputs"]["images"]["height_and_width"] == {"multiples_of": 32, "at_least": 96}
    least = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    outputs = torch.export.load(tmp_path / "network.pt2").module()(least, torch.tensor([[96, 96]]))
    assert list(outputs) == list(notes["outputs"])


def test_what_is_not_as_asked_for_is_said(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that could not be left free, and a file that nothing is there to run."""
    shapes = {"images": (2, 3, "height", "width"), "sizes": (2, 2)}

    def exported(method: Segmenter, path: Path, *given: object) -> exporting.Exported:
        path.touch()
        return exporting.Exported(path, ("height", "width"), shapes, {}, (), 20)

    monkeypatch.setattr(exporting, "export", exported)
    monkeypatch.setattr(reading, "RUNTIME", "no_such_module")
    found = call(export, f"weights={weights}", f"out={tmp_path}/network.onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"network.onnx", "network.json"}
    assert found["largest_difference"] is None
    told = capsys.readouterr().err.replace("\n", " ")
    assert "batch could not be left free: the images are 2 × 3 × height × width" in told
    assert "onnxruntime is not installed: nobody has checked what the file computes" in told


def test_a_file_that_computes_something_else_leaves_an_earlier_one(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(method: Segmenter, exported: exporting.Exported, given: exporting.Input) -> float:
        assert exported.path.read_text() == "worse"
        raise ExportError("it is off")

    def exported(method: Segmenter, path: Path, *given: object) -> exporting.Exported:
        path.write_text("worse")
        return exporting.Exported(path, (), {}, {}, (), 20)

    out = tmp_path / "network.onnx"
    out.write_text("good")
    monkeypatch.setattr(exporting, "export", exported)
    monkeypatch.setattr(exporting, "largest_difference", failed)
    with pytest.raises(ExportError, match="it is off"):
        call(export, f"weights={weights}", f"out={out}")
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_text() == "good"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("out=a.onnx",), r"found nothing to export: expected one of run=DIR and weights=FILE"),
        (("run=somewhere", "out=a.pt2"), r"out=a\.pt2: expected a name that ends in \.onnx, as format=onnx has it"),
        (("run=somewhere", "out=a.onnx", "format=torch"), r"expected a name that ends in \.pt2"),
        (("run=somewhere", "out=a.onnx", "format=tflite"), r"format=tflite: expected one of torch, onnx"),
    ],
)
def test_settings_that_do_not_go_together(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call(export, *overrides)
