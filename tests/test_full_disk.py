"""A run on a disk that fills up: what was whole stays whole, and the same command goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from disks import files_up_to, small
from maskbench.errors import StorageError
from maskbench.evaluate import evaluate
from maskbench.runtime import training
from maskbench.runtime.checkpoints import read_checkpoint
from maskbench.runtime.history import read_rows
from maskbench.runtime.run_folder import read_json
from maskbench.sweep.status import Status
from maskbench.train import train
from trained import TINY, call, run

__all__ = ["run"]


def ballast(disk: Path, free: int) -> Path:
    """A file that leaves so many bytes."""
    path = disk / "ballast"
    with path.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - free)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("after", ["the first epoch", "its training"])
def test_a_run_that_has_no_room_left_goes_on_when_it_has(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    last = run / "checkpoints/last.ckpt"
    size = last.stat().st_size
    line = [*TINY, "logger=none", "speed.enabled=false"]
    with small(tmp_path / "disk", 8 * size) as disk:
        if after == "the first epoch":
            ballast(disk, size + size // 2)
        else:
            judge = training.judge

            def full(*args: object) -> object:
                ballast(disk, 2048)
                return judge(*args)

            monkeypatch.setattr(training, "judge", full)
        with pytest.raises(
            StorageError, match=r"can't be written \(No space left on device\): only .* MB are free"
        ) as raised:
            call(train, *line, f"runs={disk}")
        (folder,) = (disk / "try").iterdir()
        epochs = 1 if after == "the first epoch" else 2
        assert ("last.ckpt" if epochs == 1 else "predictions.json.gz") in str(raised.value)
        status = Status.read(folder)
        assert status.state == "failed"
        assert status.reason.startswith("StorageError: ")
        assert len(status.reason) > 100
        assert status.again == "maybe"
        assert read_checkpoint(folder / "checkpoints/last.ckpt")["epoch"] == epochs - 1
        assert len(read_rows(folder / "history.csv")) >= epochs
        assert not [path for path in folder.rglob("*") if path.name.startswith(".") and "part" in path.name]
        (disk / "ballast").unlink()
        monkeypatch.undo()
        call(train, *line, f"runs={disk}")
        assert Status.read(folder).state == "done"
        mine, whole = (read_checkpoint(path / "checkpoints/last.ckpt")["state_dict"] for path in (folder, run))
        assert all(torch.equal(mine[name], whole[name]) for name in whole)


def test_a_run_that_is_scored_again_without_room_keeps_what_it_has(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with files_up_to(16), pytest.raises(StorageError, match="can't be written"):
        call(evaluate, f"run={copy}")
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert call(evaluate, f"run={copy}")["segm"] == read_json(run / "metrics.json")["segm"]
