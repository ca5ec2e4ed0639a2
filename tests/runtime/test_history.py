from __future__ import annotations

from pathlib import Path

from maskbench.runtime.history import History, peak_memory, read_rows, write_rows


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


def test_memory_is_megabytes() -> None:
    assert 50 < peak_memory() < 1e6
