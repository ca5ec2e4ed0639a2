"""A run that another process is at, or that lies where nothing can be written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from disks import small
from maskbench.errors import StorageError, TakenError
from maskbench.evaluate import evaluate
from maskbench.predict import predict
from maskbench.report import report
from maskbench.runtime import checkpoints
from maskbench.runtime.run_folder import load_method
from trained import call, run

__all__ = ["run"]

HOLDING = """
import sys
from pathlib import Path
from maskbench.errors import RunError
from maskbench.runtime.trial import alone
from maskbench.sweep.status import Status
folder = Path(sys.argv[1])
with alone(folder, lambda: RunError()):
    Status.begin(folder)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def study(run: Path, tmp_path: Path) -> Path:
    """A study of one run, a copy that may be changed."""
    shutil.copytree(run, tmp_path / "study" / run.name)
    return tmp_path / "study"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return path


@pytest.fixture
def held(study: Path, run: Path) -> Iterator[Path]:
    """The run, while another process trains it again."""
    command = [sys.executable, "-c", HOLDING, str(study / run.name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield study / run.name
        other.kill()


def test_a_run_that_is_being_trained_is_read_and_not_written(held: Path, photo: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in held.rglob("*") if path.is_file()}
    with pytest.raises(TakenError, match=r"process \d+ on .* is training it since .* Wait for it or stop it"):
        call(evaluate, f"run={held}")
    assert call(predict, f"run={held}", f"images={photo}", f"out={tmp_path}/out", "device=cpu")["images"] == 1
    (unfinished,) = call(report, f"study={held.parent}", "logger=none")["unfinished"]
    assert (unfinished["run"], unfinished["state"]) == (held.name, "running")
    assert {path: path.read_bytes() for path in held.rglob("*") if path.is_file()} == before


def test_a_checkpoint_never_lacks_while_the_next_takes_its_place(
    study: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads it in between finds the one before."""
    last, seen = study / run.name / "checkpoints/last.ckpt", []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append(last.is_file())
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    checkpoints._keep(last, last.with_name("previous.ckpt"))
    assert seen == [True]
    assert last.read_bytes() == last.with_name("previous.ckpt").read_bytes()
    checkpoints._keep(last, last.with_name("previous.ckpt"))  # killed before the next one came
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "previous.ckpt"}
    shutil.copy(run / "checkpoints/last.ckpt", last.with_name("next"))
    last.with_name("next").replace(last)
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(PermissionError("no links here")))
    checkpoints._keep(last, last.with_name("previous.ckpt"))
    assert not last.exists()


def test_a_run_on_a_disk_that_takes_nothing_is_used_as_it_is(run: Path, photo: Path, tmp_path: Path) -> None:
    with small(tmp_path / "disk", 2**26) as disk:
        folder = shutil.copytree(run, disk / "study" / run.name)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert load_method(folder).method.classes == ("disc", "rectangle", "triangle")
        assert call(predict, f"run={folder}", f"images={photo}", f"out={tmp_path}/out", "device=cpu")["images"] == 1
        for verb, words in ((evaluate, [f"run={folder}"]), (report, [f"study={folder.parent}", "logger=none"])):
            with pytest.raises(StorageError, match=r"can't be written \(Read-only file system\); make it writable"):
                call(verb, *words)
