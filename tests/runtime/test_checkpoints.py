from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning import LightningModule
from torch import nn

from maskbench.errors import ConfigError, WeightsError
from maskbench.runtime.checkpoints import BATCHES, NOTE, chosen, fit_weights, newest, read_checkpoint


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
