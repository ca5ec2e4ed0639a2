from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskbench.atomic import beside, replace_text, replacing


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    replace_text(path, "one")
    with replacing(path) as part:
        part.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "one")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        raise ZeroDivisionError(part.write_text("half"))
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_no_two_processes_write_beside_a_file_under_one_name() -> None:
    path = Path("folder/a.txt")
    assert beside(path).parent == path.parent
    assert beside(path) != beside(path)
