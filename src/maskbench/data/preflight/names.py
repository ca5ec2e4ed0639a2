"""Where the photos lie that records name: below the image folder, as spelled, and each once."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from maskbench.data.coco import stored
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Finding
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.records import Photo

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of files that count as photos where no record names them."""


class Folder:
    """An image folder as it is on disk.

    Args:
        layout: of the data set.
        name: of the folder, as the layout has it.
    """

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.path = layout, layout.path(name)
        self.named: set[str] = set()
        """Paths that records name, normalised."""

    @cached_property
    def files(self) -> dict[str, bool]:
        """Every file in it and below, by its path, and whether it is a symbolic link."""
        return dict(_files(self.path))

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return {_spelling(os.path.relpath(path, self.path)): path for path in self.files}

    def locate(self, photo: Photo, findings: list[Finding]) -> Path | None:
        """The regular file that a record names; None where there is none, or none that may be read."""
        if photo.name is None:
            return None
        if not photo.name.strip() or "\0" in photo.name:
            findings.append(kinds.NAME_FORM.at(self.layout.shown(self.path), photo.label, f"is named {photo.name!r}"))
            return None
        path = Path(os.path.normpath(self.path / photo.name))
        file = self.layout.shown(path)
        inside = path.is_relative_to(self.layout.root) or path.is_relative_to(self.path)
        if not inside or ".." in photo.name.split("/"):
            findings.append(kinds.NAME_CLIMBS.at(file, photo.label, f"`file_name` is {photo.name!r}"))
            return None
        if os.path.isabs(photo.name):
            findings.append(kinds.NAME_ABSOLUTE.at(file, photo.label, f"`file_name` is {photo.name!r}"))
        try:
            path = Path(os.path.normpath(stored(self.path, photo.name)))
            self.named.add(str(path))
            mode = path.stat().st_mode
        except OSError as error:
            findings.append(self._missing(photo.name, file, photo.label, error.strerror or str(error)))
            return None
        except ValueError as error:  # of a name that no file system can have
            findings.append(kinds.NAME_FORM.at(file, photo.label, f"is named {photo.name!a} ({error})"))
            return None
        if not stat.S_ISREG(mode):
            found = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            findings.append(kinds.NAME_FORM.at(file, photo.label, f"is {found}"))
            return None
        if self.files.get(str(path)):
            findings.append(kinds.PHOTO_LINK.at(file, photo.label, f"points to {os.readlink(path)}"))
        return path

    def _missing(self, name: str, file: str, label: str, reason: str) -> Finding:
        if not self.path.is_dir():
            return kinds.PHOTO_MISSING.at(file, label, f"there is no folder {self.layout.shown(self.path)}")
        alike = self._spelled.get(_spelling(name))
        if alike is not None and alike != str(self.path / name):
            return kinds.NAME_SPELLING.at(
                file, label, f"on disk it is {self.layout.shown(Path(alike))!a}, not {file!a}"
            )
        if os.path.islink(self.path / name):
            reason = f"is a link to {os.readlink(self.path / name)}, which is not there"
        return kinds.PHOTO_MISSING.at(file, label, reason)


def unnamed(folders: Collection[Folder], but: Path | None) -> Iterator[Finding]:
    """Photos in the folders that no record of any split names.

    Args:
        folders: of all splits, after all photos were located.
        but: a folder that holds something else.
    """
    named = {path for folder in folders for path in folder.named}
    told: set[str] = set()
    for folder in folders:
        for path in folder.files:
            aside = but is not None and Path(path).is_relative_to(but)
            if path.lower().endswith(IMAGES) and path not in named and path not in told and not aside:
                told.add(path)
                yield kinds.PHOTO_UNNAMED.at(folder.layout.shown(Path(path)), "", "no record names it")


def _files(top: Path) -> Iterator[tuple[str, bool]]:
    """Paths below a folder, links to folders among them, and whether they are links; nothing where it can't be read."""
    folders = [str(top)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry.path, entry.is_symlink()


def _spelling(name: str) -> str:
    """The same for names that differ in what file systems and tools are careless about."""
    return unicodedata.normalize("NFC", os.path.normpath(name.replace("\\", "/"))).casefold()
