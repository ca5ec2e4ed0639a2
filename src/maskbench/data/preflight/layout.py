"""What a preflight is told: where a data set lies, and what it is meant for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Split:
    """A split as the settings name it: its annotation file and its image folder, relative to the root."""

    name: str
    annotations: str
    images: str


@dataclass(frozen=True)
class Layout:
    """What is to be looked through.

    Args:
        root: folder of the data set, absolute.
        splits: train first, then tune, if it has a file of its own, and test.
        semantic: maps of stuff and things of the training photos, relative to the root.
        short, long: sides of the network's input, as `fitted` has them.
        max_instances: that may be found on a photo.
        skip: whether photos of train that can't be read are to be left out.
    """

    root: Path
    splits: tuple[Split, ...]
    semantic: str | None = None
    short: int | None = None
    long: int | None = None
    max_instances: int = 100
    skip: bool = False

    def __post_init__(self) -> None:
        if not self.root.is_absolute():
            raise ValueError(f"the root of a layout is absolute, found {self.root}")

    def path(self, name: str) -> Path:
        """Of a file or a folder below the root, without dots in it."""
        return Path(os.path.normpath(self.root / name))

    def shown(self, path: Path) -> str:
        """A path as it is told: from the root where it lies in it."""
        return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
