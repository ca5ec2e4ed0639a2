"""A verb called as Hydra calls it, and a run that is trained once for all tests that read one."""

from __future__ import annotations

import fcntl
import functools
import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from maskbench.runtime.verb import config_folder
from maskbench.train import train

TINY = (
    "method=small/solov2",
    "data.root.images=16",
    "data.root.val_images=4",
    "data.root.size=64",
    "data.tune_share=0.25",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "optim.optimiser.lr=1e-4",
    "threads=1",
    "speed.images=2",
)
"""Overrides of a training that takes seconds, and so few small steps that there are masks everywhere."""

QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""A trainer that writes nothing."""


def composed(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a verb, with Hydra's part in Hydra's own place."""
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = compose(verb, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def call(task: Callable[[DictConfig], dict[str, Any]], *overrides: str) -> dict[str, Any]:
    """What a verb returns, and would print as its last line."""
    return task(composed(task.__name__, overrides))


def trained(base: Path) -> Path:
    """The folder of a finished run, trained below `base`."""
    folder = Path(call(train, *TINY, f"runs={base}", "study=trained")["run"])
    with gzip.open(folder / "predictions.json.gz") as file:
        assert json.load(file), "a run that found nothing shows little to the tests that read it"
    return folder


def trained_by_one(session: Path) -> Path:
    """The folder of a run that the first of several processes trains below `session`, while the others wait for it."""
    session.mkdir(exist_ok=True)
    with (session / "name").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (name := file.read()):
            name = trained(session).name
            file.write(name)
            file.flush()
    return session / "trained" / name


@functools.cache
def run_of(base: Path, session: Path | None) -> Path:
    """The folder of a finished run below `base`; of several processes each has a copy."""
    if session is None:
        return trained(base)
    folder = trained_by_one(session)
    return shutil.copytree(folder.parent, base / "trained", symlinks=True) / folder.name


@pytest.fixture(scope="session")  # so that nothing is patched when it is trained
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody changes."""
    base = tmp_path_factory.getbasetemp()
    return run_of(base, base.parent / "run" if "PYTEST_XDIST_WORKER" in os.environ else None)
