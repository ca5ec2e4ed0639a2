# No `from __future__ import annotations` here: Hydra reads the types of a plugin's dataclasses.
"""The Hydra launcher `pool`: every job of a multirun becomes a single run in a process of its own.

Torch stays out of this process: it composes, draws the data, starts and watches.
"""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError
from maskbench.runtime.command_line import refuse_parts
from maskbench.runtime.console import console, say
from maskbench.runtime.nvidia import visible_gpus
from maskbench.runtime.plugins import plug_in
from maskbench.runtime.trial import identify
from maskbench.runtime.verb import config_folder, report_errors
from maskbench.sweep.pool import End, Outcome, Trial, run_pool

TRIALS_FAILED = 3
"""Exit status of a sweep that ran and lost trials; 1 is one that could not start any, and has nothing to time."""


class PoolLauncher(Launcher):
    """Runs jobs as `python -m maskbench.train OVERRIDES`, some at once on this machine.

    Args:
        slots: jobs at once; None: one for each core's share of `threads`, or where jobs run on GPUs as many as these
            are enough for.
        threads: CPU threads a job.
        gpus: GPUs to share out among the jobs; None: all that this process can see.
        retries: how often a job that failed is tried again, unless its settings are at fault.
        silence_minutes: without a sign of life, after which a job is killed; None: never.

    Raises:
        ConfigError: one of them is below what makes sense.
    """

    def __init__(
        self,
        slots: int | None = None,
        threads: int = 1,
        gpus: int | None = None,
        retries: int = 1,
        silence_minutes: float | None = 60,
    ) -> None:
        for name, value in (("slots", slots), ("threads", threads), ("gpus", gpus)):
            if value is not None and value < 1:
                raise ConfigError(f"hydra.launcher.{name} is at least 1, found {value}")
        if retries < 0:
            raise ConfigError(f"hydra.launcher.retries is at least 0, found {retries}")
        if silence_minutes is not None and silence_minutes <= 0:
            raise ConfigError(f"hydra.launcher.silence_minutes is above 0 or null, found {silence_minutes}")
        self.slots, self.threads, self.gpus = slots, threads, gpus
        self.retries, self.silence = retries, None if silence_minutes is None else 60 * silence_minutes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and print a line of JSON; exits with 3 when some of them failed."""
        outcomes = self.run(job_overrides)
        conclude(outcomes)
        return [_returned(outcome) for outcome in outcomes]

    def run(self, job_overrides: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run the jobs; an outcome for each different trial among them, in their order."""
        setup_globals()
        with report_errors():
            jobs = [self.job(overrides) for overrides in job_overrides]
            slots, gpus = self.places([cfg.trainer for cfg, _ in jobs])
            return run_pool(
                _once([trial for _, trial in jobs]),
                slots,
                self.threads,
                gpus=gpus,
                retries=self.retries,
                silence=self.silence,
                console=console,
            )

    def places(self, trainers: Sequence[DictConfig]) -> tuple[int, list[str]]:
        """How many of the jobs run at once, and the GPUs that they share: none where all of them keep to the CPU.

        Raises:
            ConfigError: fewer GPUs can be seen than were asked for, or than the jobs take.
        """
        wanted = [_devices(trainer) for trainer in trainers if trainer.get("accelerator") != "cpu"]
        seen = visible_gpus() if wanted else []
        named = {trainer.get("accelerator") for trainer in trainers} & {"gpu", "cuda"}
        if named and not seen:
            raise ConfigError(
                f"trainer.accelerator={named.pop()}, but this process can see no GPU (it asks CUDA_VISIBLE_DEVICES and "
                "nvidia-smi): set it to auto or cpu"
            )
        if wanted and self.gpus is not None and self.gpus > len(seen):
            raise ConfigError(f"hydra.launcher.gpus={self.gpus}, but this process can see {len(seen)}")
        gpus = seen[: self.gpus]
        if not gpus:
            return self.slots or max(1, cores() // self.threads), []
        each = max(wanted)
        slots = self.slots or max(1, len(gpus) // each)
        if slots * each > len(gpus):
            raise ConfigError(
                f"{slots} trials at once of trainer.devices={each} take {slots * each} GPUs, but there are {len(gpus)} "
                f"({', '.join(gpus)}): set trainer.devices or hydra.launcher.slots lower"
            )
        return slots, gpus

    def job(self, overrides: Sequence[str]) -> tuple[DictConfig, Trial]:
        """The config and the process of one job; draws or finds its data, which its name depends on.

        Raises:
            MaskbenchError: it can't be run, or not as it says.
        """
        cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        HydraConfig.instance().set_config(cfg)
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        refuse_parts(own, cfg.hydra.runtime.choices, config_folder())
        self._require_nothing_unheard(own, overrides)
        trial = identify(own, cfg.hydra.runtime.choices)
        return own, Trial(name=trial.folder.name, command=self._command(overrides), folder=trial.folder)

    def _require_nothing_unheard(self, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Raise `ConfigError` for a setting that `_command` would override."""
        if cfg.threads not in (None, self.threads):
            raise ConfigError(
                f"threads={cfg.threads}, but a trial of this sweep gets hydra.launcher.threads={self.threads}: set "
                f"hydra.launcher.threads={cfg.threads}, which decides how many trials run at once too"
            )
        if cfg.speed.enabled and any(word.lstrip("+").startswith("speed.enabled=") for word in overrides):
            raise ConfigError(
                "speed.enabled=true, but a sweep times none of its trials, which would disturb each other: leave it "
                "out, and time them afterwards with `benchmark study=DIR`"
            )

    def _command(self, overrides: Sequence[str]) -> list[str]:
        # timing while neighbours train would time the neighbours: `benchmark study=DIR` does it afterwards, alone
        own = [f"threads={self.threads}", "speed.enabled=false"]
        return [sys.executable, "-m", "maskbench.train", *self.searchpath(), *overrides, *own]

    def searchpath(self) -> list[str]:
        """The words that say where configs of somebody else's methods lie, as this process was told."""
        sources = self.config.hydra.runtime.config_sources
        folders = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
        searched = [word for word in self.config.hydra.overrides.hydra if word.startswith("hydra.searchpath")]
        return [*folders, *searched]


def cores() -> int:
    """Cores that this process may use: a container or a scheduler may have given it a few of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(trainer: DictConfig) -> int:
    """GPUs that a job takes, by number or by their list; one where it takes all that it can see."""
    devices = trainer.get("devices")
    if isinstance(devices, str) and "," in devices:
        devices = [word for word in devices.split(",") if word.strip()]
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return max(1, len(devices))
    return max(1, int(devices)) if str(devices).isdecimal() else 1


def register() -> None:
    """Make `hydra/launcher=pool` known; before `hydra.main`."""
    plug_in(PoolLauncher)


def _once(trials: Sequence[Trial]) -> list[Trial]:
    """Each trial once, named by its place in the folder that all of them share.

    Overrides that say the same in two ways are one trial, but the same trial in two studies is two.
    """
    by_folder = {trial.folder.absolute(): trial for trial in trials}
    shared = _shared(by_folder)
    return [replace(trial, name=str(folder.relative_to(shared))) for folder, trial in by_folder.items()]


def _shared(folders: Iterable[Path]) -> Path:
    """The folder that all trials of a sweep lie in."""
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))


def conclude(outcomes: Sequence[Outcome]) -> None:
    """Say how the trials ended and print it as a line of JSON.

    Raises:
        SystemExit: with `TRIALS_FAILED`, when some of them failed.
    """
    names: dict[str, list[str]] = {state: [] for state in get_args(End)}
    for outcome in outcomes:
        names[outcome.state].append(outcome.trial.name)
    say(f"{len(names['done'])} trials done, {len(names['kept'])} done before, {len(names['failed'])} failed")
    print(json.dumps({"study": str(_shared(outcome.trial.folder for outcome in outcomes)), **names}), flush=True)
    if names["failed"]:
        raise SystemExit(TRIALS_FAILED)


def _returned(outcome: Outcome) -> JobReturn:
    returned = JobReturn(overrides=list(outcome.trial.command), working_dir=str(outcome.trial.folder))
    returned.status = JobStatus.COMPLETED
    returned.return_value = outcome.state
    return returned
