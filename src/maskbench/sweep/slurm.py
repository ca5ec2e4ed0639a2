"""The engine `slurm`: trials as jobs of a Slurm array, by submitit.

Jobs outlive the sweep that submitted them, which may be gone with its login node: started again, it finds those that
are still there and waits for them. What Slurm preempts, or what comes to its time limit, is put back into the queue and
goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskbench.atomic import replace_text
from maskbench.errors import ConfigError
from maskbench.sweep.cluster import Arrivals
from maskbench.sweep.engine import Engine
from maskbench.sweep.process import POLL, run_alone
from maskbench.sweep.trial import Outcome, Started, Trial

MOST = 1000
"""Jobs of an array, which a cluster as it is installed admits."""

EVERY = 30.0
"""Seconds between two questions to Slurm's accounting, for jobs that ended without a result."""

PATIENCE = 60.0
"""Seconds that a preempted trial has to write down what it has; submitit has asked Slurm for 90."""


class SlurmTrial:
    """What a job does: the trial, from start to end, as often as Slurm puts the job back into the queue.

    Args:
        trial: which.
        threads: CPUs that it has.
        folder: that the command is run in.
        silence: seconds without a sign of life after which it is killed; None: never.
    """

    def __init__(self, trial: Trial, threads: int, folder: str, silence: float | None) -> None:
        self.trial, self.threads, self.folder, self.silence = trial, threads, folder, silence

    def __call__(self) -> Outcome:
        return run_alone(self.trial, self.threads, owner(), folder=self.folder, silence=self.silence, patience=PATIENCE)

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue: the same again, since the run folder knows how far it came."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def owner() -> str:
    """The owner of the attempts of the job that this process is."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return _owner(f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"])


def _owner(job: str) -> str:
    return f"slurm {job}"


class Slurm(Engine):
    """A Slurm cluster, asked from a machine that may submit jobs.

    Args:
        study: folder of the trials, on a file system that all machines share; submitit's files lie in `slurm` there.
        slots: jobs of the array at once; None: as many as Slurm admits.
        threads: CPUs a trial.
        hours: time limit of a job; one that comes to it is put back into the queue.
        settings: of `sbatch`, by name, as `partition` or `account`.
        silence: seconds without a sign of life after which a trial is killed; None: never.

    Raises:
        ConfigError: submitit is not installed, or there is no Slurm here.
    """

    def __init__(
        self,
        study: Path,
        *,
        slots: int | None = None,
        threads: int = 1,
        hours: float = 24.0,
        settings: Mapping[str, Any] | None = None,
        silence: float | None = None,
    ) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'maskbench[slurm]'") from error
        self._submitit = submitit
        if submitit.SlurmExecutor.affinity() < 0:
            raise ConfigError("hydra/launcher=slurm: no srun on the PATH; start the sweep on a machine of the cluster")
        self.slots, self.threads, self.silence = slots, threads, silence
        self._folder = study.absolute() / "slurm"
        self._given = {
            "time": round(60 * hours),
            "cpus_per_task": threads,
            "additional_parameters": dict(settings or {}),
        }
        self._jobs: dict[str, tuple[Trial, Any]] = {}
        self._arrivals = Arrivals(lambda trial, owner: owner == _owner(self._jobs[trial.name][1].job_id))
        self._asked = time.monotonic()

    def submit(self, trials: Sequence[Trial]) -> None:
        new = [trial for trial in trials if not self._found(trial)]
        for gpus in sorted({trial.gpus for trial in new}):
            alike = [trial for trial in new if trial.gpus == gpus]
            for first in range(0, len(alike), MOST):
                self._array(alike[first : first + MOST], int(gpus))

    def _found(self, trial: Trial) -> bool:
        """Whether an earlier sweep's job is still at the trial, or in the queue for it."""
        try:
            job_id = self._note(trial).read_text(encoding="utf-8")
        except FileNotFoundError:
            return False
        job: Any = self._submitit.SlurmJob(self._folder, job_id)
        if trial.name in self._jobs or job.done(force_check=True):
            return False
        self._expect(trial, job)
        return True

    def _array(self, trials: Sequence[Trial], gpus: int) -> None:
        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=MOST)
        at_once = {"array_parallelism": self.slots or len(trials)}
        executor.update_parameters(**self._given, **at_once, **({"gpus_per_node": gpus} if gpus else {}))
        with executor.batch():
            jobs = [executor.submit(SlurmTrial(trial, self.threads, os.getcwd(), self.silence)) for trial in trials]
        for trial, job in zip(trials, jobs, strict=True):
            replace_text(self._note(trial), job.job_id)
            self._expect(trial, job)

    def _note(self, trial: Trial) -> Path:
        return self._folder / f"{trial.folder.name}.job"

    def _expect(self, trial: Trial, job: Any) -> None:
        self._jobs[trial.name] = (trial, job)
        self._arrivals.expect(trial)

    def look(self) -> Iterator[Started | Outcome]:
        yield from self._arrivals.look()
        ask = time.monotonic() - self._asked > EVERY
        if ask and self._jobs:
            self._asked = time.monotonic()
            next(iter(self._jobs.values()))[1].watcher.update()
        for trial, job in list(self._jobs.values()):
            if job.done():
                del self._jobs[trial.name]
                self._arrivals.forget(trial)
                yield self._outcome(trial, job)

    def _outcome(self, trial: Trial, job: Any) -> Outcome:
        try:
            return job.result()
        except (self._submitit.core.utils.UncompletedJobError, self._submitit.core.utils.FailedJobError) as error:
            return Outcome(trial, "failed", reason=f"Slurm's job {job.job_id}: {str(error).strip().splitlines()[-1]}")

    def stop(self, stops: Sequence[int], patience: float) -> list[Outcome]:
        """Cancel the jobs, unless it is the terminal that is gone: then they stay, and the same command finds them."""
        left = dict(self._jobs)
        self._jobs.clear()
        if not left or signal.SIGHUP in stops:
            return []
        for _, job in left.values():
            job.cancel(check=False)
        begun = [trial for trial, _ in left.values() if not self._arrivals.awaits(trial)]
        end = time.monotonic() + patience
        while time.monotonic() < end and not all(job.done(force_check=True) for _, job in left.values()):
            time.sleep(10 * POLL)
        return [Outcome(trial, "failed", reason="interrupted") for trial in begun]
