from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.zoo import Folder, good
from maskbench import preflight as verb


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return good(tmp_path / "set")


def called(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *overrides: str
) -> tuple[Any, int, str]:
    """What the last line says, the exit status, and what people were told."""
    folder.write()
    named = [f"data.root={folder.root}", "data.test_annotations=annotations/instances_test.json"]
    monkeypatch.setattr("sys.argv", ["preflight", *named, f"out={folder.root.parent / 'out'}", *overrides])
    status = 0
    try:
        verb.main()
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    printed = capsys.readouterr()
    return json.loads(printed.out.splitlines()[-1]), status, printed.err


def test_good_data_end_well(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, status, told = called(folder, monkeypatch, capsys)
    assert (status, found["errors"], found["warnings"], found["kinds"]) == (0, 0, 0, {})
    assert "Fit for a training" in told
    assert "Fit for a training" in Path(found["page"]).read_text()
    assert json.loads(Path(found["findings"]).read_text())["splits"]["train"]["photos"] == 4


def test_errors_are_told_and_set_the_exit_status(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.photo().unlink()
    folder.painted["area"] *= 3
    (folder.root / "images" / "extra.png").touch()
    found, status, told = called(folder, monkeypatch, capsys)
    assert status == verb.FAULTY
    assert found["kinds"] == {"photo-missing": 1, "area-off": 1, "photo-unnamed": 1}
    assert (found["errors"], found["warnings"], found["notes"]) == (1, 1, 1)
    assert "error photo-missing: images/train_1.png (image 1): " in told
    assert "warning area-off: " in told
    assert "note photo-unnamed: " in told


def test_what_the_data_are_for_is_set_as_for_a_training(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, status, _ = called(
        folder, monkeypatch, capsys, "transforms.eval.short=6", "evaluation.point.max_instances=1"
    )
    assert (status, set(found["kinds"])) == (0, {"objects-tiny", "objects-beyond"})


def test_drawn_data_are_looked_through_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = ("data=shapes", "data.root.images=4", "data.root.val_images=2", "data.root.size=64")
    monkeypatch.setattr("sys.argv", ["preflight", *drawn, f"out={folder.root.parent / 'out'}"])
    verb.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["errors"] == 0
