from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from maskbench.errors import WeightsError
from maskbench.weights.reading import read, unwrap

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


def written(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    return path


def same(found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(STATE)
    assert all(torch.equal(found[name], value) for name, value in STATE.items())


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.ckpt", "a.safetensors"])
def test_tensors_by_name(tmp_path: Path, name: str) -> None:
    same(read(written(tmp_path / name, STATE)).weights)


def test_arrays_of_a_model_zoo(tmp_path: Path) -> None:
    arrays = {name: value.numpy() for name, value in STATE.items()}
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    same(read(written(tmp_path / "model.pkl", content)).weights)


def test_arrays_that_python_2_wrote(tmp_path: Path) -> None:
    """Protocol 2 has bytes as text, which numpy asks `_codecs` to encode."""
    scalar = {"model": {"a": np.float32(2), "b": np.ones((2, 2), np.float16)}}
    content = scalar | {"model": {"b": scalar["model"]["b"]}, "iteration": scalar["model"]["a"]}
    assert read(written(tmp_path / "model.pkl", content)).weights["b"].dtype == torch.float32


@pytest.mark.parametrize("name", ["model.pkl", "model.pth"])
def test_arrays_of_every_kind_and_order(tmp_path: Path, name: str) -> None:
    arrays = {
        "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "half": np.ones((2, 1, 2), np.float16),
        "whole": np.array(7, dtype=np.int64),
        "bytes": np.arange(4, dtype=np.uint8),
    }
    found = read(written(tmp_path / name, {"model": arrays, "step": np.int64(3), "lr": np.float64(0.5)})).weights
    assert found["whole"].dtype == torch.int64
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key].numpy(), value)


def _array(state: tuple[Any, ...]) -> bytes:
    """A pickle of a model whose only array has this state."""

    class Stated:
        def __reduce__(self) -> Any:
            reconstruct, given, _ = np.zeros(0).__reduce__()
            return reconstruct, given, state

    return pickle.dumps({"model": {"a": Stated()}}, protocol=2)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ((1, (10**12,), np.dtype("f4"), False, b"0000"), r"4 bytes, which are not \(1000000000000,\) of float32"),
        ((1, (-1,), np.dtype("f4"), False, b"0000"), r"shape \(-1,\)"),
        ((1, (1,), np.dtype("O"), False, [None]), "an array of 'O8', expected numbers"),
        ((1, (1,), None, False, b"0000"), "without a dtype"),
        ((1, (1,)), "not enough values"),
    ],
)
def test_an_array_that_lies_is_refused(tmp_path: Path, state: tuple[Any, ...], told: str) -> None:
    (tmp_path / "model.pkl").write_bytes(_array(state))
    with pytest.raises(WeightsError, match=rf"model\.pkl: not readable as weights \(ValueError: .*{told}"):
        read(tmp_path / "model.pkl")


def test_a_number_in_a_pickle_takes_no_memory(tmp_path: Path) -> None:
    """Its place in a list of what was read before: in C that list would be 64 GB."""
    (tmp_path / "model.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\xf0.")
    assert read(tmp_path / "model.pkl").weights == {}


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_and_what_lies_beside_the_weights(tmp_path: Path, wrapper: str) -> None:
    beside = {"a.num_batches_tracked": torch.tensor(3), "ema_a_weight": STATE["a.weight"] + 1}
    parallel = {f"module.{name}": value for name, value in {**STATE, **beside}.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    content = {wrapper: parallel, "optimizer": optimizer, "iteration": 9}
    same(read(written(tmp_path / "epoch_12.pth", content)).weights)


def test_half_precision_becomes_whole() -> None:
    assert unwrap({"a": torch.ones(1, dtype=torch.float16)})["a"].dtype == torch.float32


@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": ("cat", "dog")},
        {"dataset_meta": {"classes": ["cat", "dog"]}},
        {"dataset_meta": {"CLASSES": ("cat", "dog")}},
    ],
)
def test_class_names_that_are_noted(tmp_path: Path, meta: dict[str, Any]) -> None:
    assert read(written(tmp_path / "a.pth", {"meta": meta, "state_dict": STATE})).classes == ("cat", "dog")
    assert read(written(tmp_path / "b.pth", {"meta": {"epoch": 12}, "state_dict": STATE})).classes is None


@pytest.fixture
def history() -> Iterator[Any]:
    """MMEngine's log, which its training checkpoints hold, without MMEngine."""
    names = ["mmengine", "mmengine.logging", "mmengine.logging.history_buffer"]
    modules = {name: types.ModuleType(name) for name in names}
    kind = type("HistoryBuffer", (), {"__module__": names[-1]})
    modules[names[-1]].HistoryBuffer = kind  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        buffer = kind()
        buffer.values = np.arange(3.0)
        buffer.last = np.float64(2)
        yield buffer


def test_a_log_beside_the_weights_is_ignored(tmp_path: Path, history: Any) -> None:
    content = {"message_hub": {"loss": history}, "state_dict": STATE, "seed": np.int64(3)}
    path = written(tmp_path / "epoch_12.pth", content)
    for name in [name for name in sys.modules if name.startswith("mmengine")]:
        del sys.modules[name]
    same(read(path).weights)


class Evil:
    """Touches a file when it is unpickled as pickle would have it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["model.pkl", "model.pth"])
def test_a_file_that_would_run_code_does_not(tmp_path: Path, name: str) -> None:
    touched = tmp_path / "touched"
    path = written(tmp_path / name, {"model": STATE if name.endswith("pth") else {}, "extra": Evil(touched)})
    with pytest.raises(WeightsError, match=rf"{name}: holds \S+, which is neither a tensor nor"):
        read(path)
    assert not touched.exists()


def test_text_is_decoded_as_numpy_needs_it_and_no_other_way(tmp_path: Path) -> None:
    class Zipped:
        def __reduce__(self) -> Any:
            import _codecs

            return _codecs.encode, ("x", "rot13")

    with pytest.raises(WeightsError, match="holds text in 'rot13', expected latin1"):
        read(written(tmp_path / "model.pkl", {"model": {}, "text": Zipped()}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected weights by name, found list"),
        ({"state_dict": {"a": "text"}}, "a is of type str, expected a tensor or a numeric array"),
    ],
)
def test_what_holds_no_weights_is_told(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=rf"a\.pth: {message}"):
        read(written(tmp_path / "a.pth", content))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.pkl"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x02}q\x00(X")
    with pytest.raises(WeightsError, match=rf"{name}: not readable as weights"):
        read(tmp_path / name)
