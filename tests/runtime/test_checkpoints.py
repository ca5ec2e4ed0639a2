from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import LightningModule
from torch import nn

from maskbench.errors import ConfigError, WeightsError
from maskbench.nn.backbone import Backbone
from maskbench.runtime.checkpoints import BATCHES, NOTE, chosen, fit_weights, newest, read_checkpoint
from maskbench.weights import reading


class Module(LightningModule):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(2, classes)


def write(path: Path, **content: object) -> Path:
    torch.save({"state_dict": Module().state_dict(), NOTE: {"classes": ["a"]}, BATCHES: 0} | content, path)
    return path


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt")
    module = Module()
    fit_weights(module, read_checkpoint(path)["state_dict"], path)
    assert read_checkpoint(path)[NOTE] == {"classes": ["a"]}


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(WeightsError, match="no such checkpoint"):
        read_checkpoint(path)
    content = write(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="not readable as a checkpoint"):
        read_checkpoint(path)
    torch.save({"weights": 1}, path)
    with pytest.raises(WeightsError, match="no weights of a maskbench run"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [None, b"cut"])
def test_what_is_advised_is_what_train_goes_by(tmp_path: Path, content: bytes | None) -> None:
    """A run that is done is not trained again while status.json says so; without last.ckpt it needs the one before."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    last, previous, status = folder / "last.ckpt", folder / "previous.ckpt", tmp_path / "status.json"
    if content is not None:
        last.write_bytes(content)
    with pytest.raises(WeightsError, match=f"delete {folder} and {status} and train again, from the start"):
        read_checkpoint(last)
    write(previous)
    with pytest.raises(WeightsError, match=rf"delete {status} and train again, which goes on from previous\.ckpt"):
        read_checkpoint(last)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt", extra=Path("a class that is no tensor"))
    with pytest.raises(WeightsError, match="not readable"):
        read_checkpoint(path)


class Marks:
    """What a pickle of somebody may do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("write_it", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_no_pickle_of_anybody_is_executed(tmp_path: Path, write_it: Callable) -> None:
    path, mark = tmp_path / "last.ckpt", tmp_path / "executed"
    write_it({"state_dict": {"head": Marks(mark)}, NOTE: {}}, path)
    for reader in (read_checkpoint, reading.read, lambda path: Backbone("resnet18", weights=str(path))):
        with pytest.raises(WeightsError, match=r"last\.ckpt: "):
            reader(path)
    assert not mark.exists()
    write_it(Marks(mark), path)
    pickle.loads(path.read_bytes()) if write_it is not torch.save else torch.load(path, weights_only=False)
    assert mark.exists(), "it would have been"


def test_one_bit_of_a_weight_that_changed_is_found(tmp_path: Path) -> None:
    """torch reads over it, and would train on with other weights."""
    weight = torch.tensor([1.5, -2.5, 3.5])
    path = write(tmp_path / "last.ckpt", state_dict={"head.bias": weight})
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)[NOTE] == {"classes": ["a"]}
    for reader in (read_checkpoint, reading.read):
        with pytest.raises(WeightsError, match="is not what was written"):
            reader(path)


def test_an_archive_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "last.ckpt")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    with pytest.raises(WeightsError, match="is compressed, which torch never does"):
        read_checkpoint(tmp_path / "packed")


RESUMABLE = {"epoch": 1, "global_step": 2, "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
OURS = {"method": "solo", "classes": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({NOTE: OURS | {"method": "solov2"}}, "its method is 'solov2', but that of this run is 'solo'. Put back"),
        ({NOTE: OURS | {"classes": ["a"]}}, r"its classes is \['a'\], but that of this run is \['a', 'b', 'c'\]"),
        ({"state_dict": Module(5).state_dict()}, r"does not fit Module: head\.bias is \(5,\), expected \(3,\)"),
        ({"state_dict": {"head.bias": 3}}, "its state_dict holds what is no tensor"),
        ({"epoch": None}, "does not tell its epoch"),
        ({"loops": ...}, "lacks loops"),
    ],
)
def test_training_goes_on_from_its_own_checkpoint_alone(tmp_path: Path, changed: dict, told: str) -> None:
    content = {NOTE: OURS} | RESUMABLE | changed
    last = write(tmp_path / "last.ckpt", **{name: value for name, value in content.items() if value is not ...})
    with pytest.raises(WeightsError, match=rf"last\.ckpt: .*{told}"):
        newest(tmp_path, Module(), OURS)
    previous = write(tmp_path / "previous.ckpt", **{NOTE: OURS}, **RESUMABLE)
    assert newest(tmp_path, Module(), OURS) == (previous, 2, 0)
    last.unlink()
    assert newest(tmp_path, Module(), OURS) == (previous, 2, 0)


def test_weights_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(WeightsError, match=r"head\.bias is \(5,\), expected \(3,\); head\.weight is \(5, 2\)"):
        fit_weights(Module(3), Module(5).state_dict(), Path("last.ckpt"))
    with pytest.raises(WeightsError, match=r"lacks 2 tensors, first head\.bias; has 1 .* first tail"):
        fit_weights(Module(), {"tail": torch.zeros(1)}, Path("last.ckpt"))


def test_the_epoch_before_stands_in_for_a_checkpoint_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert newest(tmp_path) is None
    last, previous = write(tmp_path / "last.ckpt", epoch=4), write(tmp_path / "previous.ckpt", epoch=3)
    assert newest(tmp_path) == (last, 5, 0)
    assert capsys.readouterr().err == ""
    last.write_bytes(last.read_bytes()[:100])
    assert newest(tmp_path) == (previous, 4, 0)
    told = capsys.readouterr().err
    assert "last.ckpt: not readable" in told
    assert "previous.ckpt is whole" in told
    last.unlink()  # killed between the two steps in which one takes the other's place
    assert newest(tmp_path) == (previous, 4, 0)
    previous.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"previous\.ckpt: not readable"):
        newest(tmp_path)


def test_the_choice_of_weights() -> None:
    assert (chosen("last"), chosen("best")) == ("last.ckpt", "best.ckpt")
    with pytest.raises(ConfigError, match="expected one of last, best"):
        chosen("first")
