from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskbench.errors import OutOfMemoryError
from maskbench.methods.base import Segmenter
from maskbench.runtime.history import read_rows
from maskbench.runtime.memory import Parts, told
from maskbench.runtime.run_folder import RunFolder, read_json
from maskbench.structures import Batch
from maskbench.study import leaderboard
from maskbench.study.runs import read_runs
from maskbench.sweep.status import Status
from maskbench.train import train
from trained import TINY, call

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to ...")


@pytest.mark.parametrize(
    ("error", "asked"), [(CUDA, "when 2.50 GiB more"), (CPU, "can't allocate"), (MemoryError(), "")]
)
def test_memory_that_ran_out_is_told_with_the_amount(tmp_path: Path, error: Exception, asked: str) -> None:
    run = RunFolder(tmp_path)
    with (
        pytest.raises(OutOfMemoryError, match=f"memory ran out.*{asked}.*on 8 images at once.*out_of_memory=halve"),
        told(run, "fail", 8, Parts()),
    ):
        raise error
    assert Parts.of(run) == Parts()
    with (
        pytest.raises(OutOfMemoryError, match=r"on 8 images at once, and on 4 in the next attempt"),
        told(run, "halve", 8, Parts()),
    ):
        raise error
    assert Parts.of(run) == Parts(2)
    with (
        pytest.raises(OutOfMemoryError, match="on 1 image at once, which can't be halved"),
        told(run, "halve", 1, Parts(8)),
    ):
        raise error
    assert Parts.of(run) == Parts(2)


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes") as raised, told(RunFolder(tmp_path), "halve", 8, Parts()):
        raise RuntimeError("shapes")
    assert not isinstance(raised.value, OutOfMemoryError)


def test_the_first_process_tells_what_happened_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)

    def other() -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with pytest.raises(OutOfMemoryError), told(run, "halve", 8, Parts()):
            raise CUDA
        monkeypatch.setenv("LOCAL_RANK", "0")

    def first() -> None:
        with told(run, "halve", 8, Parts()):
            other()
            raise RuntimeError("Connection closed by peer")

    with pytest.raises(OutOfMemoryError, match=r"2\.50 GiB more .* on 4 in the next attempt") as raised:
        first()
    assert raised.value.again == "yes"
    with pytest.raises(RuntimeError, match="Connection closed"), told(run, "halve", 4, Parts(2)):
        raise RuntimeError("Connection closed by peer")


def test_a_run_goes_on_in_smaller_parts_and_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = (*TINY, f"runs={tmp_path}", "logger=none", "speed.enabled=false", "out_of_memory=halve")
    sizes: list[int] = []
    step = Segmenter.training_step

    def limited(self: Segmenter, batch: Batch, batch_idx: int) -> torch.Tensor:
        sizes.append(len(batch))
        if len(sizes) > 2 and len(batch) > 4:  # in the second epoch
            raise CUDA
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Segmenter, "training_step", limited)
    with pytest.raises(OutOfMemoryError):
        call(train, *line)
    (folder,) = (tmp_path / "try").iterdir()
    status = Status.read(folder)
    assert status.reason.startswith("OutOfMemoryError: memory ran out when 2.50 GiB more were asked for")
    assert status.again == "yes"
    metrics = call(train, *line)
    assert sizes == [8, 4, 8, 4, 4, 4]  # twelve images an epoch
    assert metrics["parts"] == {"count": 2, "since_epoch": 1}
    assert [row["step"] for row in read_rows(folder / "history.csv")] == ["2", "4"]
    assert metrics["images_seen"] == 24
    assert read_json(folder / "memory.json") == metrics["parts"]
    (group,) = leaderboard.group(leaderboard.tabulate(read_runs(tmp_path / "try")))
    assert "¶" in leaderboard.marks(group.methods.iloc[0])
    assert "¶" in {mark for mark, _ in leaderboard.remarks(group)}
