"""Files that appear whole or not at all, and whether an archive is as it was written.

What appears whole is written beside its place, then moved there in one step.
"""

from __future__ import annotations

import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def beside(path: Path) -> Path:
    """A name next to `path` that no other process uses: write there, then `os.replace` it into place."""
    return path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; when the block ends the file moves to `path`, after an error nothing is left of it.

    The folder is made if need be. Others may read the file as the umask has it, unlike those of `tempfile`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = beside(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


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
