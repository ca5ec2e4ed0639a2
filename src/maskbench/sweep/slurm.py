"""The engine `slurm`: trials as jobs of a Slurm array, by submitit.

Jobs outlive the sweep that submitted them, which may be gone with its login node: started again, it finds those that
are still there and waits for them. What Slurm preempts, or what comes to its time limit, is put back into the queue and
goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskbench.atomic import replace_text
from maskbench.errors import ConfigError
from maskbench.sweep.cluster import Arrivals, Gate, installed, known, lost
from maskbench.sweep.engine import Engine
from maskbench.sweep.process import POLL, error_line, run_alone
from maskbench.sweep.status import FILE, HEARTBEAT, last_sign
from maskbench.sweep.trial import Outcome, Started, Trial

MOST = 1000
"""Jobs of an array, which a cluster as it is installed admits."""

REQUEUES = 100
"""How often a job that came to its time limit is put back into the queue."""

FORGOTTEN = 24 * 3600.0
"""Seconds without a sign of life after which a job counts as over that Slurm's accounting does not know."""

ASK = 30.0
"""Seconds between two questions to Slurm's accounting, for jobs that ended without a result."""


class SlurmTrial:
    """What a job does: the trial, from start to end, as often as Slurm puts the job back into the queue.

    Args:
        trial: which.
        threads: CPUs that it has.
        folder: that the command is run in.
        silence: seconds without a sign of life after which it is killed; None: never.
        patience: seconds that it has, once the job is to end, to write down what it has.
    """

    def __init__(self, trial: Trial, threads: int, folder: str, silence: float | None, patience: float) -> None:
        self.trial, self.threads, self.folder = trial, threads, folder
        self.silence, self.patience = silence, patience

    def __call__(self) -> Outcome:
        return run_alone(
            self.trial, self.threads, owner(), folder=self.folder, silence=self.silence, patience=self.patience
        )

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
        self._submitit = installed("submitit", "slurm")
        if self._submitit.SlurmExecutor.affinity() < 0:
            raise ConfigError("hydra/launcher=slurm: no srun on the PATH; start the sweep on a machine of the cluster")
        self.slots, self.threads, self.silence = slots, threads, silence
        self._folder = study.absolute() / "slurm"
        self._given = {
            "time": max(1, round(60 * hours)),
            "cpus_per_task": threads,
            "srun_args": [f"--cpus-per-task={threads}"],  # which a job's steps do not inherit
            "additional_parameters": dict(settings or {}),
        }
        self._jobs: dict[str, tuple[Trial, Any]] = {}
        self._held: list[Trial] = []
        """Retries, which wait until there is a slot for a job outside of the array."""
        self._arrivals = Arrivals(lambda trial, owner: owner == _owner(self._jobs[trial.name][1].job_id))
        self._gate, self._asked = Gate(), time.monotonic()

    def submit(self, trials: Sequence[Trial]) -> None:
        if self._jobs and self.slots:
            self._held += trials
        else:
            self._submit(trials)

    def _submit(self, trials: Sequence[Trial]) -> None:
        new = self._without_job(trials)
        for gpus in sorted({trial.gpus for trial in new}):
            alike = [trial for trial in new if trial.gpus == gpus]
            for first in range(0, len(alike), MOST):
                self._array(alike[first : first + MOST], int(gpus))

    def _without_job(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that no earlier sweep's job is at, or in the queue for; the others are waited for."""
        notes = {trial.name: self._note(trial) for trial in trials}
        jobs: dict[str, Any] = {
            name: self._submitit.SlurmJob(self._folder, note.read_text(encoding="utf-8"))
            for name, note in notes.items()
            if note.exists()
        }
        for job in list(jobs.values())[:1]:
            job.watcher.update()  # of all at once
        for trial in trials:
            if not (job := jobs.get(trial.name)):
                continue
            if self._over(trial, job):
                lost(trial, _owner(job.job_id), f"Slurm's job {job.job_id} ended without a word")
                notes[trial.name].unlink()
            else:
                self._expect(trial, job)
        return [trial for trial in trials if trial.name not in self._jobs]

    def _over(self, trial: Trial, job: Any) -> bool:
        """Whether an earlier sweep's job has ended; one that Slurm has forgotten has, when nothing is heard of it."""
        if job.watcher.get_state(job.job_id, mode="cache") == "UNKNOWN":
            signs = (self._note(trial), trial.folder / FILE, trial.folder / HEARTBEAT)
            return time.time() - last_sign(*signs) > FORGOTTEN
        return job.paths.result_pickle.exists() or job.watcher.is_done(job.job_id, mode="cache")

    def _array(self, trials: Sequence[Trial], gpus: int) -> None:
        from submitit.helpers import clean_env

        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=REQUEUES)
        at_once = {"array_parallelism": self.slots or len(trials)}
        executor.update_parameters(**self._given, **at_once, **({"gpus_per_node": gpus} if gpus else {}))
        with clean_env(), executor.batch():
            jobs = [
                executor.submit(SlurmTrial(trial, self.threads, os.getcwd(), self.silence, self.patience))
                for trial in trials
            ]
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
        if not self._gate.opens(len(self._jobs)):
            return
        for trial, job in self._ended():
            del self._jobs[trial.name]
            self._arrivals.forget(trial)
            self._note(trial).unlink(missing_ok=True)
            yield self._outcome(trial, job)
        if self._held and (room := (self.slots or 0) - len(self._jobs)) > 0:
            held, self._held = self._held[:room], self._held[room:]
            self._submit(held)

    def _ended(self) -> list[tuple[Trial, Any]]:
        """Jobs that left a result, or of which Slurm says that they are over."""
        if self._jobs and time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            next(iter(self._jobs.values()))[1].watcher.update()
        there = {entry.name for entry in os.scandir(self._folder)} if self._folder.is_dir() else set()
        return [
            (trial, job)
            for trial, job in self._jobs.values()
            if job.paths.result_pickle.name in there or job.watcher.is_done(job.job_id, mode="cache")
        ]

    def _outcome(self, trial: Trial, job: Any) -> Outcome:
        try:
            return job.result()
        except Exception as error:  # whatever its own process met with, or a file that can't be read
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = f"Slurm's job {job.job_id}: {error_line(lines)} (log: {job.paths.stdout})"
            return lost(trial, _owner(job.job_id), reason)

    def stop(self, stops: Sequence[int]) -> list[Outcome]:
        """Cancel the jobs where somebody asks for it; where the terminal is gone, or we have failed, they stay.

        The same command finds those that stay.
        """
        left = dict(self._jobs)
        self._jobs.clear()
        self._held.clear()
        if not left or not stops or signal.SIGHUP in stops:
            return []
        names, asked = [job.job_id for _, job in left.values()], len(stops)
        begun = [name for name, (trial, _) in left.items() if not self._arrivals.awaits(trial)]
        if begun:
            subprocess.run(["scancel", "--signal=INT", *(left[name][1].job_id for name in begun)], check=False)
        end = time.monotonic() + self.patience
        while begun and time.monotonic() < end and len(stops) == asked:
            if all(not _running(left[name][0]) for name in begun):
                break
            time.sleep(POLL)
        subprocess.run(["scancel", *names], check=False)
        return [lost(left[name][0], _owner(left[name][1].job_id), "interrupted", interrupted=True) for name in begun]


def _running(trial: Trial) -> bool:
    status = known(trial)
    return status is not None and status.state == "running"
