"""Files and folders that appear whole or not at all, and whether an archive is as it was written.

What appears whole is written beside its place, then moved there in one step.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from maskbench.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT)
"""What the system says where nothing more, or nothing at all, can be written."""


def beside(path: Path) -> Path:
    """A name next to `path` that no other process uses: write there, then `os.replace` it into place."""
    return path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What keeps a file from being written is told with its name, and what to do.

    Raises:
        StorageError: the disk is full, or the folder can't be written to.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in (*FULL, *CLOSED) and _concerns(error, path):
            raise StorageError(_unwritten(path, error)) from error
        raise


def _concerns(error: OSError, path: Path) -> bool:
    """Whether it is about the file, a folder that it lies in or, where there is no room, its disk, and not about
    something that was read or written elsewhere meanwhile."""
    named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if error.errno in FULL:  # a file that is open already is not named
        return not named or any(_folder(name).stat().st_dev == _folder(path).stat().st_dev for name in named)
    return any(name.parent == path.parent or name in path.parents for name in named)


def _folder(path: Path) -> Path:
    """The path itself or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents, Path()) if folder.is_dir())


def _unwritten(path: Path, error: OSError) -> str:
    if error.errno not in FULL:
        return f"{path}: can't be written ({error.strerror}); make it writable, or name another place for it"
    if error.errno == errno.EFBIG:
        return (
            f"{path}: can't be written, as files may not be so large here (ulimit -f); what was there before is whole"
        )
    there = _folder(path).absolute()
    left = f"only {shutil.disk_usage(there).free / 1e6:.1f} MB are free in {there}"
    if error.errno == errno.EDQUOT:  # there may be terabytes, but not for this user
        left = f"your quota is used up in {there}"
    return (
        f"{path}: can't be written ({error.strerror}): {left}. What was there before is whole; make room, and the same "
        "command goes on from there"
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; when the block ends the file moves to `path`, after an error nothing is left of it.

    The folder is made if need be. Others may read the file as the umask has it, unlike those of `tempfile`.

    Raises:
        StorageError: as `writing` does.
    """
    part = beside(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            part.replace(path)
        finally:
            with suppress(OSError):  # what went wrong before is what is told
                part.unlink(missing_ok=True)


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends it moves to `folder`, after an error nothing is left of it.

    Args:
        folder: not there yet, or empty.

    Raises:
        StorageError: as `writing` does.
    """
    unfinished = beside(folder)
    with writing(folder):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def replace_text(path: Path, text: str) -> None:
    """Write a text so that no reader ever sees half of it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def require_whole(archive: Path) -> None:
    """Hold what torch saved to the sums that it wrote beside, which torch itself does not look at.

    A file of its earlier format, which is no archive, has none.

    Raises:
        ValueError: some of it has changed since; or is compressed, which torch never does: it may be gigabytes.
        zipfile.BadZipFile: it is cut.
    """
    if not zipfile.is_zipfile(archive):
        return
    with zipfile.ZipFile(archive) as opened:
        if packed := [entry.filename for entry in opened.infolist() if entry.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"its part {packed[0]} is compressed, which torch never does")
        if damaged := opened.testzip():
            raise ValueError(f"its part {damaged} is not what was written")
