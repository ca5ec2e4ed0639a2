"""Train methods: `python -m maskbench.train [overrides]`, or with `-m` every combination of them, or the best.

A run is fitted, judged on test, timed and written to RUNS/STUDY/METHOD-seedS-HASH8. Started again it goes on after its
last epoch, and says what it found when it is done already.
"""

from __future__ import annotations

import sys
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maskbench.runtime import grid, launcher, sweeper, verb
from maskbench.runtime.command_line import swept_with_methods
from maskbench.runtime.console import say
from maskbench.runtime.fitting import applied
from maskbench.runtime.preflight import identify_checked
from maskbench.runtime.ranks import leads
from maskbench.runtime.run_folder import RunFolder, read_json
from maskbench.runtime.trial import attempt, comes_first
from maskbench.sweep.status import Status


def train(cfg: DictConfig) -> dict[str, Any]:
    """One trial, from wherever it stands to the end; returns its folder and its metrics, AP by class left to the file.

    Where several devices train, their other processes return nothing: the first one knows when all is written.
    """
    hydra = HydraConfig.get()
    if first := comes_first(cfg, hydra.runtime.choices):
        _rehearse(cfg)
    trial = identify_checked(cfg, hydra.runtime.choices, hydra.overrides.task)
    run = RunFolder(trial.folder)
    if finished := Status.finished(run.path):
        say(f"{run.path} is done already, as of {finished.ended}: nothing to do")
    else:
        with attempt(run.path) as done:
            if leads() and (trial.fitted or not first):
                _rehearse(applied(cfg, trial.fitted))
            # only here: a process that finds its trial done, or starts other processes, has no use for torch
            from maskbench.runtime.training import train as fit_and_judge

            fit_and_judge(trial, done)
    if not leads():
        return {}
    metrics = read_json(run.metrics)
    return {"run": str(run.path), **{name: value for name, value in metrics.items() if name != "per_class"}}


def _rehearse(cfg: DictConfig) -> None:
    from maskbench.runtime.rehearsal import rehearse

    rehearse(cfg)


def main() -> None:
    launcher.register()
    grid.register()
    sweeper.register()
    sys.argv[1:] = swept_with_methods(sys.argv[1:])
    verb.run("train", train)


if __name__ == "__main__":
    main()
