"""A search over settings: rounds of trials, suggested by optuna, of which AP on the tune split finds the best.

What is known stands in two places: what was suggested and told in `search.journal`, what became of a trial in its run
folder. So a search that was stopped or killed goes on with the same command. What was told stays; what was not is run
with the settings that were suggested, from its last epoch on.

A suggestion is drawn from the seed and its own number, and depends on what was told and what was running by then: with
rounds of one size a search that was broken off makes the suggestions of one that was not.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from maskbench.atomic import replacing
from maskbench.errors import ConfigError, RunError
from maskbench.runtime.console import complain, percent, say, show
from maskbench.runtime.objective import final_ap
from maskbench.runtime.run_folder import write_json
from maskbench.runtime.search_space import Space
from maskbench.sweep.trial import Outcome, Trial

JOURNAL, RESULT = "search.journal", "search.json"
SETTINGS, REASONS = "settings", "reasons"
"""What the journal has beside trials: what is searched, and why trials failed, by their numbers."""

Find = Callable[[Sequence[str]], Trial]
Run = Callable[[Sequence[Sequence[str]]], list[Outcome]]


@dataclass(frozen=True)
class Result:
    """What came of a run: its outcome, and its AP on tune (0 to 1) unless it failed."""

    outcome: Outcome
    ap: float | None


class Search:
    """A search in the folder of a study, from wherever it stands.

    Args:
        space: what is searched.
        runs: where studies lie.
        study: the study's name.
        find: the trial that overrides are, as `TrialLauncher.job` has it.
        run: runs overrides and returns an outcome for each different trial, as `TrialLauncher.run` does.
        trials: to be told in all.
        batch: trials of a round.
        seed: of the suggestions.
        train: how a training is started, before its overrides.

    Raises:
        ConfigError: the folder has a search over something else.
        RunError: its journal can't be read.
    """

    def __init__(
        self,
        space: Space,
        runs: Path,
        study: str,
        find: Find,
        run: Run,
        *,
        trials: int = 20,
        batch: int = 1,
        seed: int = 0,
        train: Sequence[str] = ("python", "-m", "maskbench.train"),
    ) -> None:
        self.space, self.folder, self.name, self.find, self.run = space, runs / study, study, find, run
        self.trials, self.batch, self.seed, self.train = trials, batch, seed, train
        self._study = _open(self.folder / JOURNAL)
        self._require_same_search(find(space.overrides(next(space.corners()))))
        self._runs: dict[int, Trial] = {}
        self._results: dict[Path, Result] = {}
        for trial in self._told():
            result = self._recalled(trial)
            self._results.setdefault(result.outcome.trial.folder, result)

    def rounds(self) -> list[Outcome]:
        """Suggest, run and tell until enough trials are told; returns an outcome for each different run."""
        self.write()
        while asked := self._asked():
            self._judge(asked)
            for trial in asked:
                self._tell(trial)
            self.write()
            best, _ = self.ranked()[0]
            say(f"{len(self._told())} of {self.trials} trials are told; the best AP on tune is {percent(best.ap)}")
        return [result.outcome for result in self._results.values()]

    def _require_same_search(self, first: Trial) -> None:
        """Raise `ConfigError` where the folder has a search over something else.

        Args:
            first: the run at the space's first corner, whose name tells all that trials have in common, data included.
        """
        asked = {"space": self.space.described(), "first": first.folder.name, "words": list(self.space.words)}
        before = self._study.user_attrs.get(SETTINGS)
        if before is None:
            self._study.set_user_attr(SETTINGS, asked)
        elif (before["space"], before["first"]) != (asked["space"], asked["first"]):
            what = "what is searched" if before["space"] != asked["space"] else "other settings, or the data"
            began, found = " ".join(before["words"]), " ".join(self.space.words)
            raise ConfigError(
                f"{self.folder}: the search in it began with {began}, and {what} changed since, found {found}: "
                "say study=NAME for a search of its own, or go on with what it began with"
            )

    # What is known ----------------------------------------------------------------------------------------------------

    def ranked(self) -> list[tuple[Result, FrozenTrial]]:
        """The runs so far, each once: the best on tune first, those that failed at the end."""
        once = {self._run_of(trial).folder: trial for trial in reversed(self._told())}
        rows = [(self._results[folder], trial) for folder, trial in once.items()]
        return sorted(rows, key=lambda row: (row[0].ap is None, -(row[0].ap or 0.0), row[1].number))

    def _told(self) -> list[FrozenTrial]:
        return self._having(TrialState.COMPLETE, TrialState.FAIL)

    def _having(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials by number; one whose search was killed in the middle of its suggestion lacks settings and is none."""
        found = self._study.get_trials(deepcopy=False, states=states)
        return [trial for trial in found if trial.params.keys() == self.space.searched.keys()]

    def _run_of(self, trial: FrozenTrial) -> Trial:
        if trial.number not in self._runs:
            self._runs[trial.number] = self.find(self.space.overrides(trial.params))
        return self._runs[trial.number]

    def _recalled(self, trial: FrozenTrial) -> Result:
        run = self._run_of(trial)
        if trial.value is not None:
            return Result(Outcome(run, "kept"), trial.value)
        return Result(Outcome(run, "failed", reason=self._reasons().get(str(trial.number))), None)

    def _reasons(self) -> dict[str, str]:
        reasons: dict[str, str] = self._study.user_attrs.get(REASONS, {})
        return reasons

    # A round ----------------------------------------------------------------------------------------------------------

    def _asked(self) -> list[FrozenTrial]:
        """What was suggested and not told, filled up to a round; empty when enough trials are told."""
        room = min(self.batch, self.trials - len(self._told())) - len(self._having(TrialState.RUNNING))
        for _ in range(room):
            self._study.sampler = _sampler(self.seed, len(self._study.get_trials(deepcopy=False)))
            self._study.ask(dict(self.space.searched))
        return self._having(TrialState.RUNNING)

    def _judge(self, asked: Sequence[FrozenTrial]) -> None:
        """Run what has no result yet: suggestions that are the same run are run once."""
        jobs = {self._run_of(trial).folder: self.space.overrides(trial.params) for trial in asked}
        new = [job for folder, job in jobs.items() if folder not in self._results]
        for outcome in self.run(new) if new else ():
            self._results[outcome.trial.folder] = _judged(outcome)

    def _tell(self, trial: FrozenTrial) -> None:
        result = self._results[self._run_of(trial).folder]
        if result.ap is not None:
            self._study.tell(trial.number, result.ap)
            return
        self._study.set_user_attr(REASONS, self._reasons() | {str(trial.number): result.outcome.reason or "unknown"})
        self._study.tell(trial.number, state=TrialState.FAIL)

    # What is said of it -----------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write search.json: the best settings with the command that trains with them, and a row for each run."""
        rows: list[dict[str, Any]] = [
            {
                "run": result.outcome.trial.folder.name,
                "tune/AP": result.ap,
                "settings": self.space.written(trial.params),
                "failed": result.outcome.reason,
            }
            for result, trial in self.ranked()
        ]
        command = self.final_command()
        best = rows[0] | {"command": command} if command else None
        write_json(self.folder / RESULT, {"objective": "tune/AP", "best": best, "rows": rows})

    def show(self) -> None:
        """A table of the runs, and the command that trains with the best settings."""
        keys = list(self.space.searched)
        rows = [
            [result.outcome.trial.folder.name, percent(result.ap), *(_short(trial.params[key]) for key in keys)]
            for result, trial in self.ranked()
        ]
        show(f"{self.folder}: mask AP on tune × 100, the best first", ["run", "AP", *keys], rows)
        if command := self.final_command():
            say(f"Trains with the best settings, in a study of its own:\n{command}")

    def final_command(self) -> str | None:
        """Trains with the best settings, in another study, since in this one it is done; None while there are none."""
        result, trial = next(iter(self.ranked()), (None, None))
        if result is None or trial is None or result.ap is None:
            return None
        words = [word for word in self.space.overrides(trial.params) if not word.lstrip("+").startswith("study=")]
        return shlex.join([*self.train, *words, f"study={self.name}-best"])


def _open(journal: Path) -> optuna.Study:
    """The study that a journal holds, or a new one; raises `RunError` where it can't be read."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    _mend(journal)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # by its whole path, or optuna would wait for ever for a lock that a killed process left
        storage = JournalStorage(JournalFileBackend(str(journal.absolute())))
        return optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    except ValueError as error:
        raise RunError(f"{journal}: not readable as a search ({error}); move it away, and a new one begins") from error


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process left unfinished, or nothing after it could be read."""
    content = journal.read_bytes() if journal.exists() else b""
    if not content.endswith(b"\n") and content:
        with replacing(journal) as part:
            part.write_bytes(content[: content.rfind(b"\n") + 1])


def _sampler(seed: int, number: int) -> TPESampler:
    """TPE over all settings together, which takes what is running for bad: a round is no suggestion many times."""
    drawn = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # optuna 4 says so of both
        return TPESampler(multivariate=True, constant_liar=True, seed=drawn)


def _judged(outcome: Outcome) -> Result:
    """Its AP on tune; one that has none has failed, however it ended."""
    if outcome.state == "failed":
        return Result(outcome, None)
    try:
        return Result(outcome, final_ap(outcome.trial.folder))
    except RunError as error:
        complain(str(error))
        return Result(replace(outcome, state="failed", reason=str(error)), None)


def _short(value: str | int | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
