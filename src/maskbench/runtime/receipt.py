"""What a step over a study was made of, so that it is not made again when nothing has changed since."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import maskbench
from maskbench.atomic import replace_text
from maskbench.runtime.nvidia import driver
from maskbench.sweep.status import Status
from maskbench.sweep.trial import ANNOUNCED

MADE = ("report", "plots", "logs", "wandb", "slurm")
"""Folders of a study of which nothing is read."""

CODE = (".py", ".j2", ".yaml")


class Receipt:
    """The files that a step reads, as they are now, the settings that it was asked for, the machine and the code.

    Args:
        path: where it is kept.
        files: that the step reads.
        makes: files that it writes.
        settings: that it was asked for.
    """

    def __init__(self, path: Path, files: Iterable[Path], makes: Iterable[Path], settings: Mapping[str, Any]) -> None:
        self.path, self._makes = path, list(makes)
        self._content = {
            "files": {str(file): _stamp(file) for file in sorted(files)},
            "settings": dict(settings),
            "machine": [platform.node(), platform.python_version(), version("torch"), driver()],
            "code": _code(Path(maskbench.__file__).parent),
        }

    @property
    def holds(self) -> bool:
        """Whether the step was made of the same, and what it made is there."""
        if not all(file.exists() for file in self._makes):
            return False
        try:
            return json.loads(self.path.read_text(encoding="utf-8")) == json.loads(json.dumps(self._content))
        except (OSError, ValueError, RecursionError):
            return False

    def write(self) -> None:
        replace_text(self.path, json.dumps(self._content, indent=1) + "\n")


def read_by_report(study: Path) -> list[Path]:
    """The files of a study that its report is made of."""
    runs = [path for path in study.iterdir() if path.is_dir() and path.name not in MADE]
    own = [study / ANNOUNCED] if (study / ANNOUNCED).exists() else []
    return own + [file for run in runs for file in run.rglob("*") if file.is_file() and file.suffix != ".ckpt"]


def read_by_stopwatch(study: Path) -> list[Path]:
    """The files of a study's finished runs that their timing is made of."""
    runs = [path for path in study.iterdir() if path.is_dir() and Status.finished(path)]
    return [file for run in runs for file in (run / "config.yaml", *sorted((run / "checkpoints").glob("*.ckpt")))]


def _code(package: Path) -> str:
    """A digest of when the package's files were written; methods of other packages are not looked at."""
    stamps = [[str(file), *_stamp(file)] for file in sorted(package.rglob("*")) if file.suffix in CODE]
    return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()


def _stamp(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_mtime_ns, found.st_size]
