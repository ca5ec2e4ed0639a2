from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from disks import files_up_to, small
from maskbench.atomic import beside, replace_text, replacing, writing
from maskbench.errors import StorageError


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


def test_a_full_disk_leaves_what_was_there_and_is_told(tmp_path: Path) -> None:
    with small(tmp_path / "disk", 2**20) as disk:
        path = disk / "deep" / "a.txt"
        replace_text(path, "one")
        (disk / "others").write_bytes(bytes(2**19))
        told = r"deep/a\.txt: can't be written \(No space left on device\): only 0\.5 MB are free in .*/deep\. What was"
        with pytest.raises(StorageError, match=told):
            replace_text(path, "x" * 600_000)
        assert path.read_text() == "one"
        assert [each.name for each in path.parent.iterdir()] == ["a.txt"]
        (disk / "others").unlink()
        replace_text(path, "x" * 600_000)
        assert path.stat().st_size == 600_000


def test_a_limit_of_files_is_told(tmp_path: Path) -> None:
    replace_text(tmp_path / "a.txt", "one")
    with files_up_to(1000), pytest.raises(StorageError, match=r"a\.txt: can't be written, .* \(ulimit -f\)"):
        replace_text(tmp_path / "a.txt", "x" * 5000)
    assert (tmp_path / "a.txt").read_text() == "one"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match=r"file/a\.txt: can't be written \(File exists\); make it writable"):
        replace_text(tmp_path / "file" / "a.txt", "one")
    with pytest.raises(StorageError, match=r"nowhere/a\.txt: can't be written \(No such file or directory\)"):
        replace_text(Path("/proc/nowhere/a.txt"), "one")


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_a_closed_folder_is_told_and_an_error_of_something_else_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def closed(self: Path, text: str, **_: object) -> int:
        raise OSError(reason, os.strerror(reason), str(self))

    with pytest.raises(OSError, match="other") as raised, replacing(tmp_path / "a.txt"):
        raise OSError(reason, os.strerror(reason), "/other/file.json")  # which was read meanwhile
    assert not isinstance(raised.value, StorageError)
    monkeypatch.setattr(Path, "write_text", closed)
    with pytest.raises(StorageError, match=rf"a\.txt: can't be written \({os.strerror(reason)}\); make it writable"):
        replace_text(tmp_path / "a.txt", "one")


def test_a_disk_that_is_full_elsewhere_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/proc/shared") as raised, writing(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/proc/shared")
    assert not isinstance(raised.value, StorageError)
    with pytest.raises(StorageError, match="MB are free in"), writing(tmp_path / "run"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "log"))


def test_what_is_not_there_is_not_taken_for_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as raised, writing(tmp_path):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert not isinstance(raised.value, StorageError)


def test_a_quota_is_told_without_what_is_free_to_others(tmp_path: Path) -> None:
    told = rf"a\.txt: can't be written \(.*\): your quota is used up in {tmp_path}\. What was there before is whole"
    with pytest.raises(StorageError, match=told), writing(tmp_path / "a.txt"):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


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
