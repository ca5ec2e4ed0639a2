"""Which trial a composed config is, and its attempts; without torch, for processes that only start and watch trials."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import writing
from maskbench.data.fitting.rules import READ, Fitted, fit
from maskbench.data.groups import Grouping
from maskbench.data.layouts import Places, find
from maskbench.data.parts import Part, Split, fingerprint_of, read_parts
from maskbench.data.profile import Profile, profile_at
from maskbench.errors import Again, ConfigError, RunError, TakenError, WeightsError
from maskbench.evaluation.precision import precision_name
from maskbench.runtime.fitting import applied, said
from maskbench.runtime.ranks import leads, require_one_node
from maskbench.sweep.identity import method_name, trial_hash, trial_name
from maskbench.sweep.status import LOST, OWNER, Status

DYING = 30.0
"""Seconds that a killed process may take to give back what it holds, a GPU's memory first of all."""

LOCK = ".lock"
"""The file of a run's folder that its process holds a lock on while it is at it."""


@dataclass(frozen=True)
class Composed:
    """A composed config with what follows from it and its data.

    Args:
        settings: resolved, with the method's name in them and the precision under its one name.
        fingerprint: of the data's content.
        data_name: what was chosen in the group `data`.
        folder: where the run lies.
        fitted: those of the settings that were fitted to the data, with their reasons.
    """

    settings: dict[str, Any]
    data_name: str
    fingerprint: str
    folder: Path
    fitted: tuple[Fitted, ...] = ()

    @cached_property
    def cfg(self) -> DictConfig:
        """The settings as a config."""
        return DictConfig(self.settings)


def comes_first(cfg: DictConfig, choices: Mapping[str, Any]) -> bool:
    """Whether settings are to be rehearsed before data are looked at: it is a run of its own, the first of its kind.

    Who may find the run done has no use for torch, which takes seconds to import; and a trial of a sweep is to leave
    its reason in its folder.
    """
    name = f"{method_name(str(choices['method']))}-seed{cfg.get('seed')}-*"
    study = Path(str(cfg.get("runs"))) / str(cfg.get("study"))
    return leads() and OWNER not in os.environ and not any(study.glob(name))


def identify(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> Composed:
    """The trial of a config; draws the data if they are drawn and not there yet.

    Args:
        cfg: as composed, without Hydra's own part.
        choices: what was chosen in the config groups, as Hydra has it (`hydra.runtime.choices`).
        overrides: the words of the command line; what they name is not fitted to the data.

    Raises:
        ConfigError: methods can't predict in its precision, it asks for several machines, or `group_by` can't be read.
        DataError: nothing says where the splits are, or a file is missing, broken, or at odds with another.
        WeightsError: what it is to start from is not there.
    """
    require_one_node(cfg.trainer)
    if isinstance(cfg.data.root, str):
        # a run folder is read from wherever its reader stands
        cfg = cfg.copy()
        cfg.data.root = str(data_root(cfg.data).resolve())
    fitted = _settle_fit(cfg, overrides)
    settings = cast(dict[str, Any], OmegaConf.to_container(applied(cfg, fitted), resolve=True, throw_on_missing=True))
    if not settings.get("fit"):
        settings.pop("fit", None)  # what is not fitted is the trial that it was before anything could be
    settings["method_name"] = method_name(choices["method"])
    # one name for one precision, or 32 and 32-true would be two trials
    settings["trainer"]["precision"] = precision_name(settings["trainer"]["precision"])
    _settle_start(settings)
    data = DictConfig(settings["data"])
    found, places = _content(_as_json(data)), located(data).places.settings()
    # what was found is what is named, so that nobody finds something else later
    settings["data"] |= {name: value for name, value in places.items() if name in data or value is not None}
    name = trial_name(settings["method_name"], settings["seed"], trial_hash(settings, found))
    folder = Path(settings["runs"]) / settings["study"] / name
    return Composed(settings, choices["data"], found, folder, fitted)


def fitted_settings(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Fitted, ...]:
    """What of the settings of a composed config follows from its data, but for those that a command line names.

    What starts from trained weights keeps the settings of its method, which these were trained with.
    """
    given = said(overrides) | ({"method"} if cfg.get("weights") else set())
    read = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(READ)), resolve=True)
    return _fitted(json.dumps(read), given)


@cache  # seeds of a sweep have the same
def _fitted(settings: str, given: frozenset[str]) -> tuple[Fitted, ...]:
    read = json.loads(settings)
    asked = json.dumps(read["data"])
    return fit(_profiled(asked), {**read, "data": read["data"] | _located(asked).places.settings()}, given)


def _settle_fit(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Fitted, ...]:
    """What is fitted, if it is to be."""
    wanted = cfg.get("fit", False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"fit={wanted}: expected true or false")
    return fitted_settings(cfg, overrides) if wanted else ()


def _settle_start(settings: dict[str, Any]) -> None:
    """What weights a trial starts from is told by their content, wherever they lie; without any nothing is told."""
    weights = settings.pop("weights")
    if weights is None:
        return
    path = Path(weights).expanduser()
    if path.is_file():
        settings["weights"] = {"file": str(path.resolve()), "content": _digest(path.resolve(), path.stat().st_mtime_ns)}
    elif weights.startswith("torchvision/"):
        settings["weights"] = {"file": weights, "content": weights}
    else:
        raise WeightsError(f"weights={weights}: no such file; maskbench convert makes one")
    settings["backbone"]["weights"] = "scratch"  # it is among them


@cache
def _digest(path: Path, written: int) -> str:
    """Of the file as it was written at that time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Located(NamedTuple):
    """Where a data set lies, and what tells which of its photos belong together (None: each is on its own)."""

    root: Path
    places: Places
    grouping: Grouping | None


def data_root(data: DictConfig) -> Path:
    """The folder of the data set; drawn first when `root` is a function that draws it."""
    root: str | Callable[[], Path] = data.root if isinstance(data.root, str) else instantiate(data.root)
    return (root() if callable(root) else Path(root)).expanduser()


def located(data: DictConfig) -> Located:
    """Where the splits lie that the settings `data` name, or leave to be found, as CocoDataModule has it.

    Raises:
        ConfigError: `group_by` can't be read.
        DataError: nothing says where the splits are.
    """
    return _located(_as_json(data))


def profiled(data: DictConfig) -> Profile:
    """Of what the settings `data` have to learn from, as CocoDataModule has it.

    Raises:
        ConfigError, DataError: as in `located`; or the training file is missing or broken.
    """
    return _profiled(_as_json(data))


def parts_of(data: DictConfig) -> Mapping[Split, Part]:
    """The splits of the settings `data`, read and held against each other, as CocoDataModule has them.

    Raises:
        ConfigError, DataError: as in `located`; or a file is missing, broken, or at odds with another.
    """
    root, places, grouping = located(data)
    limits = {name: data.get(name) for name in ("limit", "eval_limit")}
    return read_parts(root, places, tune_share=data.tune_share, grouping=grouping, **limits)


def _as_json(data: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(data, resolve=True, throw_on_missing=True))


@cache  # a sweep asks for each of its trials
def _located(settings: str) -> Located:
    data = DictConfig(json.loads(settings))
    root, by = data_root(data), data.get("group_by")
    return Located(root, find(root, data), None if by is None else Grouping(by))


@cache  # likewise
def _profiled(settings: str) -> Profile:
    root, places, grouping = _located(settings)
    return profile_at(root, places.train.annotations, places.test_share, grouping)


@cache  # likewise, and millions of files may be looked at
def _content(settings: str) -> str:
    """The fingerprint of the files that the JSON of `data` names."""
    data = DictConfig(json.loads(settings))
    root, places, _ = _located(settings)
    return fingerprint_of(root, places, parts_of(data), data.train_semantic)


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
        StorageError: the folder can't be written to.
        TakenError: another process is at it. In a sweep that is said only when it has had time to end.
        KeyboardInterrupt: says how to go on.
    """
    if not leads():
        yield lambda: None
        return
    swept = OWNER in os.environ
    mine = partial(taken, folder)
    with alone(folder, mine, patience=DYING if swept else 0.0) as locked:
        _await(folder, mine, locked, patience=LOST if swept else 0.0)
        this = _Attempt(folder)
        try:
            with writing(folder):
                yield this.done
        except KeyboardInterrupt:
            this.fail("interrupted")
            kept = "keeps every finished epoch; the same command again goes on from there"
            kept = "is done; W&B may not know all of it" if this.status.state == "done" else kept
            raise KeyboardInterrupt(f"Interrupted. {folder} {kept}.") from None
        except BaseException as error:
            this.fail(f"{type(error).__name__}: {error}", getattr(error, "again", "maybe"))
            raise
        this.done()


def _await(folder: Path, taken: Callable[[], RunError], locked: bool, patience: float) -> None:
    """Wait until nobody is at the trial whom the lock does not tell of: on another machine, or where it can't be had.

    Raises:
        RunError: somebody is, after `patience` seconds still.
    """
    end = time.monotonic() + patience
    while (before := Status.read(folder)) and not before.ours and not (before.here and locked):
        if before.state != "running" or before.cut(folder):
            return
        if time.monotonic() >= end:
            raise taken()
        time.sleep(1)


class _Attempt:
    """The status of this process at a trial; the outcome that it writes first stays."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.status = folder, Status.begin(folder)

    def done(self) -> None:
        self._end(self.status.done())

    def fail(self, reason: str, again: Again = "maybe") -> None:
        self._end(self.status.failed(reason, again))

    def _end(self, status: Status) -> None:
        if self.status.state == "running":
            self.status = status
            if status.state == "done":
                status.write(self.folder)
                return
            # what ended the attempt is what is told, and that may be a disk without room
            status.write_anyway(self.folder)


@contextmanager
def alone(folder: Path, taken: Callable[[], RunError], patience: float = 0.0) -> Iterator[bool]:
    """Hold the folder's lock, which ends with the process, however that ends; the file stays.

    The status alone can't keep two apart that start at once. It is a lock of the process (`lockf`): one of the open
    file (`flock`) would live on in loader workers that outlive a killed run.

    Yields:
        Whether it is held; a file system without locks leaves the status, which tells all but two that start at once.

    Raises:
        RunError: another process has it, and after `patience` seconds still; `taken` says what that means.
    """
    with writing(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("wb")
    with file:
        end = time.monotonic() + patience
        while (locked := _lock(file.fileno())) is None:
            if time.monotonic() >= end:
                raise taken()
            time.sleep(0.1)
        yield locked


def _lock(file: int) -> bool | None:
    """Whether it is held now: not where there are no locks, and None while another process has it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EAGAIN) else False
    return True


def taken(folder: Path) -> RunError:
    """That another process is at a run, and which."""
    status = Status.read(folder)
    who = "another process is at it"
    if status and status.state == "running" and not status.cut(folder):
        who = f"process {status.pid} on {status.host} is training it since {status.started}"
    return TakenError(
        f"{folder}: {who}. Wait for it or stop it; if that machine is gone, delete status.json and start again."
    )
