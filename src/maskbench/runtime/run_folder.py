"""The folder of a run: its files, and the way back from them to data and method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import replace_text
from maskbench.errors import RunError, WeightsError
from maskbench.evaluation.matches import FILE as MATCHES
from maskbench.sweep.settings import config
from maskbench.sweep.status import RESULTS
from maskbench.targets import refusal

if TYPE_CHECKING:  # what watches or scores runs reads their files without torch
    from maskbench.data.datamodule import CocoDataModule
    from maskbench.methods.base import Segmenter


NEEDED = ("backbone", "checkpoint", "data", "evaluation", "method", "optim", "seed", "trainer", "transforms")
"""Settings that a run is nothing without."""


@dataclass(frozen=True)
class RunFolder:
    """Names of the files in `runs/STUDY/METHOD-seedS-HASH8/`, and how to read and write them."""

    path: Path

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The run in `path`; raises `RunError` when there is none."""
        run = cls(Path(path))
        if not run.config.is_file():
            below = sorted(config.parent.name for config in run.path.glob(f"*/{run.config.name}"))
            hint = f"; in it are {', '.join(below[:4])}{', …' if below[4:] else ''}" if below else ""
            raise RunError(f"{run.path}: no run (expected a folder with {run.config.name}, as train writes it){hint}")
        return run

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def fitted(self) -> Path:
        return self.path / "fitted.yaml"

    @property
    def fairness(self) -> Path:
        return self.path / "fairness.json"

    @property
    def metrics(self) -> Path:
        return self.path / RESULTS

    @property
    def speed(self) -> Path:
        return self.path / "speed.json"

    @property
    def speeds(self) -> Path:
        return self.path / "speeds.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.json.gz"

    @property
    def matches(self) -> Path:
        return self.path / MATCHES

    @property
    def data(self) -> Path:
        return self.path / "data.json"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def points(self) -> Path:
        return self.path / "points.json"

    @property
    def memory(self) -> Path:
        return self.path / "memory.json"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def thumbnails(self) -> Path:
        return self.path / "thumbnails"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, composed: Mapping[str, Any]) -> None:
        """The composed config, resolved."""
        replace_text(self.config, OmegaConf.to_yaml(OmegaConf.create(dict(composed))))

    def read_config(self) -> DictConfig:
        """The composed config.

        Raises:
            RunError: it can't be read, or would call what neither maskbench nor the user knows (`targets`).
        """
        cfg = config(self.path)
        if reason := refusal(OmegaConf.to_container(cfg)):
            raise RunError(f"{self.config}: {reason}")
        if missing := [name for name in NEEDED if name not in cfg]:
            raise RunError(f"{self.config}: lacks {', '.join(missing)}, which every run writes; copy it again")
        return cfg


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file in one step, so that no reader sees half of it."""
    replace_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Raises `RunError` when the file is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing. The run is not finished; the train command again goes on with it.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path}: expected an object with named values, found {type(found).__name__}")
    return found


def require_same_data(run: RunFolder, data: CocoDataModule) -> None:
    """Raise `RunError` where the data have changed since: scores would stand under a footing that is not theirs."""
    before = read_json(run.data).get("fingerprint")
    if before != data.fingerprint:
        raise RunError(
            f"{run.data}: the run's data have the fingerprint {before}, but those in {data.root} have "
            f"{data.fingerprint} now. Put back the files it was trained on, or train again: on other data it is "
            "another run. For AP on other annotations there is predictions=FILE annotations=FILE."
        )


@dataclass(frozen=True)
class Trained:
    """A method with its trained weights, in evaluation mode on the CPU, and what its labels stand for.

    Args:
        cfg: the run's config.
        method: the method.
        category_ids: the COCO category id of each label.
    """

    cfg: DictConfig
    method: Segmenter
    category_ids: tuple[int, ...]


def load(path: str | Path) -> tuple[DictConfig, CocoDataModule, Segmenter]:
    """Config, data set and trained method of a run.

    Raises:
        RunError: the folder is no run, its config is unreadable, or its data set has other classes now.
        WeightsError: as in `load_method`.
    """
    from maskbench.runtime.compose import build_data

    trained = load_method(path)
    data = build_data(trained.cfg)
    if tuple(data.classes) != trained.method.classes:
        raise RunError(
            f"{path}: was trained on the classes {list(trained.method.classes)}, but its data set has "
            f"{list(data.classes)} now"
        )
    return trained.cfg, data, trained.method


def _is_note(note: Mapping[str, Any]) -> bool:
    classes, ids = note.get("classes"), note.get("category_ids")
    if not isinstance(classes, list) or not isinstance(ids, list) or not 0 < len(classes) == len(ids):
        return False
    return all(isinstance(name, str) for name in classes) and all(isinstance(each, int) for each in ids)


def _fitted(run: RunFolder) -> dict[str, float]:
    """The settings of prediction that tune has chosen, by name."""
    fitted = read_json(run.metrics).get("fitted", {})
    try:
        return {setting: float(found["value"]) for setting, found in fitted.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.metrics}: `fitted` is {fitted!r:.60}, expected settings with their values") from error


def load_method(path: str | Path) -> Trained:
    """The trained method of a run, whether its data set is at hand or not.

    The weights are those that its metrics are of: the last, or the best on tune where the run asked for it.

    Raises:
        RunError: the folder is no run, or its config is unreadable.
        WeightsError: its checkpoint is missing, truncated, or of another method or other classes.
    """
    from maskbench.runtime.checkpoints import NOTE, chosen, fit_weights, read_checkpoint
    from maskbench.runtime.compose import build_method

    run = RunFolder.existing(path)
    cfg = run.read_config()
    file = run.checkpoints / chosen(cfg.checkpoint)
    checkpoint = read_checkpoint(file)
    note = checkpoint[NOTE]
    if not _is_note(note):
        raise WeightsError(f"{file}: does not tell its classes and their category ids; copy the checkpoint again")
    cfg.backbone.weights = "scratch"  # whatever it began with, the checkpoint holds what became of it
    method = build_method(cfg, note["classes"])
    fit_weights(method, checkpoint["state_dict"], file)
    if run.metrics.exists():
        for setting, value in _fitted(run).items():
            method.choose(setting, value)
    return Trained(cfg, method.eval(), tuple(note["category_ids"]))
