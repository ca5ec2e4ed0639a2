"""The runs of a study, read from their folders alone, whatever state they are in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from omegaconf import DictConfig

from maskbench.errors import RunError
from maskbench.evaluation.matches import FILE, Matches, read_matches
from maskbench.sweep.identity import TrialName, parse_trial_name
from maskbench.sweep.settings import config, settings
from maskbench.sweep.status import Status
from maskbench.sweep.trial import announced

RunState = Literal["done", "running", "failed", "missing"]
GUESTS = "guests"
"""The folder of a study that holds the results of other systems."""

PHOTOS = "photos.json.gz"
"""What is on the small photos of a run, in its folder `thumbnails`."""

KEYS = ("footing", "operating_point", "method", "environment")


@dataclass(frozen=True)
class Key:
    """One of a run's fairness keys: the hash, and the named fields it is the hash of."""

    key: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a run folder says.

    Args:
        folder: the run's folder.
        method, seed, hash: as its name has them.
        state: done; running; failed, with a reason; missing, when the folder holds no results and no status.
        reason: why it has no results.
        attempts: how often it was started.
        ended: when, UTC.
        metrics, speed, speeds: the content of metrics.json, speed.json and speeds.json (speeds of other conditions, by
            their name), empty where there is none.
        points: the content of points.json, AP and speed at other input sizes, by short side, and as published, `paper`.
        data: the content of data.json, what the data set is like.
        keys: footing, operating_point, method and environment, as far as fairness.json has them.
        history: one row an epoch; empty before the first.
    """

    folder: Path
    method: str
    seed: int
    hash: str
    state: RunState
    reason: str | None = None
    attempts: int = 1
    ended: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)
    speeds: dict[str, dict[str, Any]] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def guest(self) -> bool:
        """Whether it is somebody else's, of whom only the predictions are known."""
        return self.folder.parent.name == GUESTS

    @property
    def log(self) -> Path:
        """What the pool wrote of its output."""
        return self.folder.parent / "logs" / f"{self.name}.log"

    @cached_property
    def config(self) -> DictConfig:
        """The composed config; empty where it was never written."""
        return config(self.folder)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The same as plain values."""
        return settings(self.folder)

    @property
    def data_root(self) -> Any:
        """Where its data lie, or what draws them, as its config has it; None where that is not known."""
        data = self.settings.get("data")
        return data.get("root") if isinstance(data, dict) else None

    @property
    def logged(self) -> bool:
        """Whether W&B was told of it, as its config has it."""
        return bool(self.settings.get("logger"))

    @cached_property
    def matches(self) -> Matches | None:
        """What became of each detection on test; None where the run has not kept it.

        Raises:
            DataError: the file can't be read.
        """
        path = self.folder / FILE
        return read_matches(path) if path.is_file() else None

    @cached_property
    def photos(self) -> dict[int, dict[str, Any]]:
        """By image id what is on the photos that it keeps and what it found there (`runtime.pictures`)."""
        path = self.folder / "thumbnails" / PHOTOS
        try:
            found = json.loads(gzip.decompress(path.read_bytes()))["photos"]
        except FileNotFoundError:
            return {}
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise RunError(
                f"{path}: not readable ({type(error).__name__}: {error}); `maskbench evaluate run={self.folder}` "
                "writes it anew"
            ) from error
        return {int(image_id): photo for image_id, photo in found.items()}

    def photo(self, image_id: int) -> Path | None:
        """The small photo."""
        path = self.folder / "thumbnails" / f"{image_id}.jpg"
        return path if path.is_file() else None


def read_runs(study: Path) -> list[Run]:
    """All runs in the folder of a study, begun or not, by method, seed and hash; guests after them.

    Raises:
        RunError: when the folder has no run, or a file in it can't be read.
    """
    if not study.is_dir():
        raise RunError(f"{study}: no such folder; a study is what `train -m` writes, runs/STUDY")
    runs = _in(study, announced(study))
    if not runs:
        raise RunError(f"{study}: no run in it; expected folders named METHOD-seedS-HASH8, found {_listing(study)}")
    return [*runs, *_in(study / GUESTS)]


def _in(folder: Path, announced: Sequence[str] = ()) -> list[Run]:
    paths = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    paths += [folder / name for name in announced if not (folder / name).is_dir()]
    named = [(path, parse_trial_name(path.name)) for path in paths]
    runs = [_read(path, name) for path, name in named if name]
    return sorted(runs, key=lambda run: (run.method, run.seed, run.hash))


def _read(folder: Path, name: TrialName) -> Run:
    status = Status.read(folder)
    metrics = _json(folder / "metrics.json")
    fairness = _json(folder / "fairness.json")
    state, reason = _state(folder, status, metrics)
    return Run(
        folder=folder,
        method=name.method,
        seed=name.seed,
        hash=name.hash,
        state=state,
        reason=reason,
        attempts=status.attempts if status else 0,
        ended=status.ended if status else None,
        metrics=metrics if state == "done" else {},
        speed=_json(folder / "speed.json") if state == "done" else {},
        speeds=_json(folder / "speeds.json") if state == "done" else {},
        points=_json(folder / "points.json") if state == "done" else {},
        data=_json(folder / "data.json"),
        keys={key: _key(folder / "fairness.json", fairness[key]) for key in KEYS if key in fairness},
        history=_history(folder / "history.csv"),
    )


def _key(path: Path, found: Any) -> Key:
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("key"), str)
        or not isinstance(found.get("fields"), dict)
    ):
        raise RunError(f"{path}: its keys are no hashes with fields; move the run away and train it again")
    return Key(found["key"], found["fields"])


def _state(folder: Path, status: Status | None, metrics: dict[str, Any]) -> tuple[RunState, str | None]:
    """As `Status.finished` has it: done is what says so and has its metrics."""
    if status is None:
        return "missing", "no status.json: it has not begun, or is to be run again (trials.json names what is to be)"
    if status.state == "done":
        return ("done", None) if metrics else ("missing", "metrics.json is gone: the train command again makes it anew")
    if status.state == "failed":
        return "failed", status.reason or "no reason given"
    return ("failed", "its process is gone") if status.cut(folder) else ("running", None)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON ({error}); move the run away and train it again") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: expected an object with named numbers, found {type(found).__name__}")
    return found


def _history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path}: not readable as a table ({error}); delete it, it is needed for the curves alone"
        ) from error


def _listing(study: Path) -> str:
    names = sorted(path.name for path in study.iterdir())
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "nothing"
