from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.data.cache import cache_folder, recall, remember


def test_the_folder_is_a_setting_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKBENCH_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("MASKBENCH_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "maskbench"


def test_what_is_remembered_is_recalled(tmp_path: Path) -> None:
    remember(tmp_path / "new" / "value.json", {"a": [1, 2.5]})
    assert recall(tmp_path / "new" / "value.json") == {"a": [1, 2.5]}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["value.json"]


def test_nothing_and_rubbish_are_not_recalled(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"a": ')
    assert recall(tmp_path / "cut.json") is None
    assert recall(tmp_path / "missing.json") is None
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert recall(tmp_path / "deep.json") is None


def test_a_cache_that_cannot_be_written_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file" / "value.json", 1)
    assert recall(tmp_path / "file" / "value.json") is None
