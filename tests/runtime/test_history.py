from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from maskbench.runtime.history import History, process_memory, read_rows, write_rows


def test_rows_may_have_different_columns(tmp_path: Path) -> None:
    path = tmp_path / "run" / "history.csv"
    assert read_rows(path) == []
    write_rows(path, [{"epoch": 0, "lr": 0.1}, {"epoch": 1, "lr": 0.2, "tune/AP": 0.5}])
    assert read_rows(path) == [
        {"epoch": "0", "lr": "0.1", "tune/AP": ""},
        {"epoch": "1", "lr": "0.2", "tune/AP": "0.5"},
    ]
    assert [file.name for file in path.parent.iterdir()] == ["history.csv"]


def test_the_counts_travel_with_the_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    history.epochs, history.images, history.minutes = 3, 54, 0.5
    resumed = History(tmp_path / "history.csv")
    resumed.load_state_dict(history.state_dict())
    assert (resumed.epochs, resumed.images, resumed.minutes) == (3, 54, 0.5)


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_is_in_millions_of_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("resource.getrusage", lambda _: SimpleNamespace(ru_maxrss=3_000_000))
    assert process_memory() == pytest.approx(3 * unit)
