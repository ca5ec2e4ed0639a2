"""Which trial a composed config is, and its attempts; without torch, for processes that only start and watch trials."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskbench.data.fingerprint import dataset_files, fingerprint
from maskbench.errors import RunError, WeightsError
from maskbench.evaluation.precision import precision_name
from maskbench.runtime.ranks import leads, require_one_node
from maskbench.sweep.identity import method_name, trial_hash, trial_name
from maskbench.sweep.status import OWNER, Status

DYING = 30.0
"""Seconds that a killed process may take to give back what it holds, a GPU's memory first of all."""

LOCK = ".lock"
"""The file of a run's folder that its process holds a lock on while it is at it."""


@dataclass(frozen=True)
class Composed:
    """A composed config with what follows from it and its data.

    Args:
        cfg: resolved, with the method's name in it and the precision under its one name.
        fingerprint: of the data's content.
        data_name: what was chosen in the group `data`.
        folder: where the run lies.
    """

    cfg: DictConfig
    data_name: str
    fingerprint: str
    folder: Path


def identify(cfg: DictConfig, choices: Mapping[str, Any]) -> Composed:
    """The trial of a config; draws the data if they are drawn and not there yet.

    Args:
        cfg: as composed, without Hydra's own part.
        choices: what was chosen in the config groups, as Hydra has it (`hydra.runtime.choices`).

    Raises:
        ConfigError: methods can't predict in its precision, or it asks for several machines.
        WeightsError: what it is to start from is not there.
    """
    require_one_node(cfg.trainer)
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    settings["method_name"] = method_name(choices["method"])
    # one name for one precision, or 32 and 32-true would be two trials
    settings["trainer"]["precision"] = precision_name(settings["trainer"]["precision"])
    if isinstance(settings["data"]["root"], str):
        # a run folder is read from wherever its reader stands
        settings["data"]["root"] = str(Path(settings["data"]["root"]).expanduser().resolve())
    _settle_start(settings)
    content = _fingerprint(DictConfig(settings["data"]))
    name = trial_name(settings["method_name"], settings["seed"], trial_hash(settings, content))
    folder = Path(settings["runs"]) / settings["study"] / name
    return Composed(DictConfig(settings), choices["data"], content, folder)


def _settle_start(settings: dict[str, Any]) -> None:
    """What weights a trial starts from is told by their content, wherever they lie; without any nothing is told."""
    weights = settings.pop("weights")
    if weights is None:
        return
    path = Path(weights).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        settings["weights"] = {"file": str(path.resolve()), "content": content}
    elif weights.startswith("torchvision/"):
        settings["weights"] = {"file": weights, "content": weights}
    else:
        raise WeightsError(f"weights={weights}: no such file; maskbench convert makes one")
    settings["backbone"]["weights"] = "scratch"  # it is among them


def data_root(data: DictConfig) -> Path:
    """The folder of the data set; drawn first when `root` is a function that draws it."""
    root: str | Callable[[], Path] = data.root if isinstance(data.root, str) else instantiate(data.root)
    return root() if callable(root) else Path(root)


def _fingerprint(data: DictConfig) -> str:
    """Of the files that `data` names, as CocoDataModule has it, without building one."""
    splits = [(data.train_annotations, data.train_images), (data.test_annotations, data.test_images)]
    if data.tune_annotations is not None:
        splits.append((data.tune_annotations, data.tune_images or data.train_images))
    root = data_root(data)
    return fingerprint(root, dataset_files(root, splits, data.train_semantic))


def planned_epochs(cfg: DictConfig) -> int | None:
    """Epochs where the budget is images; None where the trainer is told otherwise how long (`max_steps`)."""
    epochs: int | None = cfg.trainer.get("max_epochs")
    return epochs if epochs is None or cfg.protocol.share == 1 else max(1, round(cfg.protocol.share * epochs))


@contextmanager
def attempt(folder: Path) -> Iterator[Callable[[], None]]:
    """One attempt at the trial in `folder`, with its outcome in status.json.

    On several devices every process runs the whole command; the first one alone reads and writes the status.

    Yields:
        What is called when all results are written: from then on the trial is done, whatever becomes of those who are
        told of it. It is done at the latest when the block ends.

    Raises:
        RunError: another process is at it.
        KeyboardInterrupt: says how to go on.
    """
    if not leads():
        yield lambda: None
        return
    with alone(folder, lambda: _taken(folder, Status.read(folder)), patience=_patience(folder)):
        before = Status.read(folder)
        if before and before.state == "running" and not before.cut(folder):
            raise _taken(folder, before)
        this = _Attempt(folder)
        try:
            yield this.done
        except KeyboardInterrupt:
            this.fail("interrupted")
            kept = "keeps every finished epoch; the same command again goes on from there"
            kept = "is done; W&B may not know all of it" if this.status.state == "done" else kept
            raise KeyboardInterrupt(f"Interrupted. {folder} {kept}.") from None
        except BaseException as error:
            this.fail(f"{type(error).__name__}: {error}")
            raise
        this.done()


def _patience(folder: Path) -> float:
    """Seconds to wait for the process of the attempt before, where its engine says that it has ended."""
    before = Status.read(folder)
    return DYING if before and before.cut(folder) and before.owner == os.environ.get(OWNER) else 0.0


class _Attempt:
    """The status of this process at a trial; the outcome that it writes first stays."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.status = folder, Status.begin(folder)

    def done(self) -> None:
        self._end(self.status.done())

    def fail(self, reason: str) -> None:
        self._end(self.status.failed(reason))

    def _end(self, status: Status) -> None:
        if self.status.state == "running":
            self.status = status
            status.write(self.folder)


@contextmanager
def alone(folder: Path, taken: Callable[[], RunError], patience: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process, however that ends; the file stays.

    The status alone can't keep two apart that start at once. It is a lock of the process (`lockf`): one of the open
    file (`flock`) would live on in loader workers that outlive a killed run.

    Raises:
        RunError: another process has it, and after `patience` seconds still; `taken` says what that means.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("wb") as file:
        end = time.monotonic() + patience
        while not _locked(file.fileno()):
            if time.monotonic() >= end:
                raise taken()
            time.sleep(0.1)
        yield


def _locked(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # a file system without locks leaves the status, which tells all but two that start at once
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _taken(folder: Path, status: Status | None) -> RunError:
    who = "another process is training it"
    if status and status.state == "running" and not status.cut(folder):
        who = f"process {status.pid} on {status.host} is training it since {status.started}"
    return RunError(
        f"{folder}: {who}. Wait for it or stop it; if that machine is gone, delete status.json and start again."
    )
