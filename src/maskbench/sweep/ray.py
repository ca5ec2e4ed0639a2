"""The engine `ray`: trials as tasks of a Ray cluster, one that runs already or one of this machine alone.

Ray finds the CPUs and GPUs, packs what takes a part of one, and runs again what was lost with a worker or a machine. A
task is a process that starts the trial's own and waits for it. All machines need this package in the same place, and a
file system that they share.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, cast

from maskbench.errors import ConfigError
from maskbench.sweep.cluster import Arrivals, installed, lost, passed_on
from maskbench.sweep.engine import Engine
from maskbench.sweep.process import POLL, run_alone
from maskbench.sweep.trial import Outcome, Started, Trial

LOSSES = 3
"""How often Ray runs a task again whose worker or machine was lost."""

STORE_BYTES = 100 * 2**20
"""Of the object store of a cluster of one's own: a trial hands over a few words."""


class Ray(Engine):
    """A Ray cluster.

    Args:
        threads: CPUs a trial.
        address: of a cluster that runs, as `ray.init` has it; None: one on this machine, which ends with the sweep.
        cpus, gpus: of this machine's cluster.
        need_gpus: whether a trial can't do without one; otherwise it takes none where the cluster has none.
        silence: seconds without a sign of life after which a trial is killed; None: never.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(
        self,
        threads: int = 1,
        *,
        address: str | None = None,
        cpus: int = 1,
        gpus: int = 0,
        need_gpus: bool = False,
        silence: float | None = None,
    ) -> None:
        self._ray = installed("ray", "ray")
        self.threads, self.address, self.silence = threads, address, silence
        self._own = {"num_cpus": cpus, "num_gpus": gpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        self._need_gpus = need_gpus
        self._has_gpus = True
        self._owner = f"ray {uuid.uuid4()}"
        self._task: Any = None
        self._tasks: dict[Any, Trial] = {}
        self._arrivals = Arrivals(lambda trial, owner: owner == self._owner)

    def __enter__(self) -> Ray:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        given = {"address": self.address} if self.address else {"address": "local", **self._own}
        before = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
        try:
            self._ray.init(**given, configure_logging=False, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"hydra.launcher.address={self.address}: Ray can't be reached ({error})") from error
        finally:
            signal.signal(signal.SIGTERM, before)
        self._has_gpus = self._ray.cluster_resources().get("GPU", 0) > 0
        if self._need_gpus and not self._has_gpus:
            self._ray.shutdown()
            raise ConfigError(
                "trainer.accelerator asks for a GPU, but Ray's cluster has none: set it to auto or cpu, or start "
                "Ray with --num-gpus"
            )
        # a failure of the trial's own is an outcome and no exception: Ray runs again what was lost, nothing else
        self._task = self._ray.remote(max_retries=LOSSES, num_cpus=self.threads)(cast(Any, run_alone))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    def submit(self, trials: Sequence[Trial]) -> None:
        given = {"folder": os.getcwd(), "silence": self.silence, "patience": self.patience, "environment": passed_on()}
        for trial in trials:
            task = self._task.options(num_gpus=trial.gpus if self._has_gpus else 0)
            self._tasks[task.remote(trial, self.threads, self._owner, **given)] = trial
            self._arrivals.expect(trial)

    def look(self) -> Iterator[Started | Outcome]:
        yield from self._arrivals.look()
        for task in self._ended(list(self._tasks), 0):
            trial = self._tasks.pop(task)
            self._arrivals.forget(trial)
            yield self._outcome(task, trial)

    def _ended(self, tasks: list[Any], seconds: float) -> list[Any]:
        """Those of the tasks that end within so many seconds."""
        return self._ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[0] if tasks else []

    def _outcome(self, task: Any, trial: Trial, interrupted: bool = False) -> Outcome:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            reason = f"{type(cause).__name__}: {(str(cause).strip() or 'no more is known').splitlines()[0]}"
            return lost(trial, self._owner, "interrupted" if interrupted else reason, interrupted=interrupted)

    def stop(self, stops: Sequence[int]) -> list[Outcome]:
        asked, end = len(stops), time.monotonic() + 1.5 * self.patience
        for task in self._tasks:
            self._ray.cancel(task, recursive=False)
        left = set(self._tasks)
        while left and time.monotonic() < end and len(stops) == asked:
            left -= set(self._ended(list(left), POLL))
        for task in left:
            self._ray.cancel(task, force=True, recursive=False)
        begun = {task: trial for task, trial in self._tasks.items() if not self._arrivals.awaits(trial)}
        self._tasks.clear()
        return [
            lost(trial, self._owner, "interrupted", interrupted=True)
            if task in left
            else self._outcome(task, trial, interrupted=True)
            for task, trial in begun.items()
        ]
