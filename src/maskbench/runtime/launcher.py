# No `from __future__ import annotations` here: Hydra reads the types of a plugin's dataclasses.
"""The Hydra launchers: every job of a multirun becomes a single run in a process of its own, wherever that runs.

Torch stays out of this process: it composes, draws the data, starts and watches.
"""

import copy
import json
import os
import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError
from maskbench.runtime.command_line import refuse_parts
from maskbench.runtime.console import console, say
from maskbench.runtime.nvidia import visible_gpus
from maskbench.runtime.plugins import plug_in
from maskbench.runtime.preflight import identify_checked
from maskbench.runtime.verb import config_folders, report_errors
from maskbench.sweep.engine import Engine, run
from maskbench.sweep.pool import Pool
from maskbench.sweep.ray import Ray
from maskbench.sweep.slurm import Slurm
from maskbench.sweep.trial import End, Outcome, Trial

TRIALS_FAILED = 3
"""Exit status of a sweep that ran and lost trials; 1 is one that could not start any, and has nothing to time."""


class TrialLauncher(Launcher):
    """Runs jobs as `python -m maskbench.train OVERRIDES`, on an engine that a subclass names.

    Args:
        threads: CPU threads a job.
        retries: how often a job that failed is tried again, unless its settings are at fault.
        silence_minutes: without a sign of life, after which a job is killed; None: never.

    Raises:
        ConfigError: one of them is below what makes sense.
    """

    def __init__(self, *, threads: int, retries: int, silence_minutes: float | None) -> None:
        _require_some(threads=threads)
        if retries < 0:
            raise ConfigError(f"hydra.launcher.retries is at least 0, found {retries}")
        if silence_minutes is not None and silence_minutes <= 0:
            raise ConfigError(f"hydra.launcher.silence_minutes is above 0 or null, found {silence_minutes}")
        self.threads, self.retries = threads, retries
        self.silence = None if silence_minutes is None else 60 * silence_minutes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.config = config

    @abstractmethod
    def engine(self, trainers: Sequence[DictConfig], study: Path) -> Engine:
        """Where jobs run.

        Args:
            trainers: the settings `trainer` of all jobs.
            study: the folder that all of them lie in.

        Raises:
            ConfigError: they can't run there.
        """

    def gpus_of(self, trainer: DictConfig) -> float:
        """GPUs that a job takes where there are some."""
        return 0 if trainer.get("accelerator") == "cpu" else _devices(trainer)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and print a line of JSON; exits with 3 when some of them failed."""
        outcomes = self.run(job_overrides)
        conclude(outcomes)
        return [_returned(outcome) for outcome in outcomes]

    def run(self, job_overrides: Sequence[Sequence[str]]) -> list[Outcome]:
        """Run the jobs; an outcome for each different trial among them, in their order."""
        setup_globals()
        with report_errors():
            trials, engine = self._prepared(job_overrides)
            return run(trials, engine, retries=self.retries, console=console)

    def _prepared(self, job_overrides: Sequence[Sequence[str]]) -> tuple[list[Trial], Engine]:
        """What is to be run and where; the configs of the jobs, megabytes of hundreds, end here."""
        compose = Composer(self.context.config_loader, self.config)
        jobs = [self.job(overrides, compose) for overrides in job_overrides]
        trials = _once([trial for _, trial in jobs])
        return trials, self.engine([cfg.trainer for cfg, _ in jobs], _shared(trial.folder for trial in trials))

    def job(self, overrides: Sequence[str], compose: "Composer | None" = None) -> tuple[DictConfig, Trial]:
        """The config and the process of one job; draws or finds its data, which its name depends on.

        Args:
            overrides: the job's words of a command line.
            compose: what has composed others of the same sweep.

        Raises:
            MaskbenchError: it can't be run, or not as it says.
        """
        compose = compose or Composer(self.context.config_loader, self.config)
        cfg, choices = compose(overrides)
        self._require_nothing_unheard(cfg, overrides)
        trial = identify_checked(cfg, choices, overrides)
        gpus = self.gpus_of(cfg.trainer)
        return cfg, Trial(trial.folder.name, self._command(overrides), trial.folder.absolute(), gpus=gpus)

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
        # and the data were looked through here, once for all
        own = [f"threads={self.threads}", "speed.enabled=false", "preflight=off"]
        return [sys.executable, "-m", "maskbench.train", *self.searchpath(), *overrides, *own]

    def searchpath(self) -> list[str]:
        """The words that say where configs of somebody else's methods lie, as this process was told."""
        sources = self.config.hydra.runtime.config_sources
        folders = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
        searched = [word for word in self.config.hydra.overrides.hydra if word.startswith("hydra.searchpath")]
        return [*folders, *searched]


class Composer:
    """Configs of the jobs of a sweep, by their overrides.

    Hydra takes a tenth of a second for a config, and jobs that differ in nothing but their seeds have the same one.

    Args:
        loader: Hydra's.
        master: the sweep's own config.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self.loader, self.master = loader, master
        self._known: dict[tuple[str, ...], tuple[DictConfig, Any]] = {}
        """By the overrides but the seed: the config, and Hydra's own part."""

    def __call__(self, overrides: Sequence[str]) -> tuple[DictConfig, Mapping[str, Any]]:
        """The config of a job and the choices in its groups; Hydra's own part is set to be the job's."""
        seeds = [word for word in overrides if word.startswith("seed=")]
        others = tuple(word for word in overrides if word not in seeds)
        if others not in self._known:
            self._known[others] = self._compose(others)
        shared, HydraConfig.instance().cfg = self._known[others]
        cfg = copy.deepcopy(shared)
        for word in seeds:
            cfg.seed = OverridesParser.create().parse_override(word).value()
        return cfg, HydraConfig.get().runtime.choices

    def _compose(self, overrides: Sequence[str]) -> tuple[DictConfig, Any]:
        whole = self.loader.load_sweep_config(self.master, list(overrides))
        HydraConfig.instance().set_config(whole)
        cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        refuse_parts(cfg, whole.hydra.runtime.choices, *config_folders())
        return cfg, HydraConfig.instance().cfg


class PoolLauncher(TrialLauncher):
    """Runs some jobs at once on this machine.

    Args:
        slots: jobs at once; None: one for each core's share of `threads`, or where jobs run on GPUs as many as these
            are enough for.
        gpus: GPUs to share out among the jobs; None: all that this process can see.
        threads, retries, silence_minutes: as `TrialLauncher` has them.
    """

    def __init__(
        self,
        slots: int | None = None,
        threads: int = 1,
        gpus: int | None = None,
        retries: int = 1,
        silence_minutes: float | None = 60,
    ) -> None:
        super().__init__(threads=threads, retries=retries, silence_minutes=silence_minutes)
        _require_some(slots=slots, gpus=gpus)
        self.slots, self.gpus = slots, gpus

    def engine(self, trainers: Sequence[DictConfig], study: Path) -> Engine:
        slots, gpus = self.places(trainers)
        return Pool(slots, self.threads, gpus=gpus, silence=self.silence)

    def places(self, trainers: Sequence[DictConfig]) -> tuple[int, list[str]]:
        """How many of the jobs run at once, and the GPUs that they share: none where all of them keep to the CPU.

        Raises:
            ConfigError: fewer GPUs can be seen than were asked for, or than the jobs take.
        """
        wanted = [_devices(trainer) for trainer in trainers if trainer.get("accelerator") != "cpu"]
        seen = visible_gpus() if wanted else []
        if (named := _named_gpu(trainers)) and not seen:
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


class RayLauncher(TrialLauncher):
    """Runs jobs on a Ray cluster: one that runs already, or one of this machine alone.

    Args:
        address: of the cluster, `auto` or as `ray start` tells it; None: this machine.
        share: of a GPU, for jobs on one: at 0.5 two share it.
        threads, retries, silence_minutes: as `TrialLauncher` has them.
    """

    def __init__(
        self,
        address: str | None = None,
        threads: int = 1,
        share: float = 1,
        retries: int = 1,
        silence_minutes: float | None = 60,
    ) -> None:
        super().__init__(threads=threads, retries=retries, silence_minutes=silence_minutes)
        if not 0 < share <= 1:
            raise ConfigError(f"hydra.launcher.share is a part of a GPU, above 0 and at most 1, found {share}")
        self.address, self.share = address, share

    def gpus_of(self, trainer: DictConfig) -> float:
        own = super().gpus_of(trainer)
        if own > 1 and self.share < 1:
            raise ConfigError(
                f"hydra.launcher.share={self.share:g}, but trainer.devices={own:g}: a job on several GPUs shares none"
            )
        return own * self.share

    def engine(self, trainers: Sequence[DictConfig], study: Path) -> Engine:
        return Ray(
            self.threads,
            address=self.address,
            cpus=max(cores(), self.threads),
            gpus=len(visible_gpus()) if any(map(self.gpus_of, trainers)) else 0,
            need_gpus=bool(_named_gpu(trainers)),
            silence=self.silence,
        )


class SlurmLauncher(TrialLauncher):
    """Runs jobs as an array of a Slurm cluster; `trainer.devices` says how many GPUs each asks for.

    Args:
        slots: jobs at once; None: as many as Slurm admits.
        hours: time limit of a job, which goes on in another one if it needs more.
        sbatch: settings of `sbatch` by name, as `partition` or `account`.
        threads, retries, silence_minutes: as `TrialLauncher` has them.
    """

    def __init__(
        self,
        slots: int | None = None,
        hours: float = 24,
        sbatch: Mapping[str, Any] | None = None,
        threads: int = 1,
        retries: int = 1,
        silence_minutes: float | None = 60,
    ) -> None:
        super().__init__(threads=threads, retries=retries, silence_minutes=silence_minutes)
        _require_some(slots=slots)
        if hours <= 0:
            raise ConfigError(f"hydra.launcher.hours is above 0, found {hours}")
        self.slots, self.hours, self.sbatch = slots, hours, sbatch

    def engine(self, trainers: Sequence[DictConfig], study: Path) -> Engine:
        return Slurm(
            study,
            slots=self.slots,
            threads=self.threads,
            hours=self.hours,
            settings=self.sbatch,
            silence=self.silence,
        )


def _require_some(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"hydra.launcher.{name} is at least 1, found {value}")


def _named_gpu(trainers: Sequence[DictConfig]) -> set[str]:
    """The words by which jobs ask for a GPU, and for nothing else."""
    return {trainer.get("accelerator") for trainer in trainers} & {"gpu", "cuda"}


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
    """Make `hydra/launcher=pool|ray|slurm` known; before `hydra.main`."""
    for launcher in (PoolLauncher, RayLauncher, SlurmLauncher):
        plug_in(launcher)


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
