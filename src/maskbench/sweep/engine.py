"""The loop of a sweep, the same on whatever engine: what is done is kept, what fails is tried again, all is told."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console

from maskbench.errors import ConfigError
from maskbench.sweep.process import POLL
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Outcome, Started, Trial, announce
from maskbench.sweep.watch import Watch


class Engine(ABC):
    """Where trials run: it is entered when there is one to be run, and left when all have ended or were stopped."""

    slots: int | None = None
    """Trials at once, where that is known."""

    patience = 30.0
    """Seconds that a trial has, once it is interrupted, to write down what it has."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(  # noqa: B027  (most have nothing to close)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what stays open between trials."""

    @abstractmethod
    def submit(self, trials: Sequence[Trial]) -> None:
        """Take them over, to be run in their order after those that it has."""

    @abstractmethod
    def look(self) -> Iterator[Started | Outcome]:
        """What has happened since the last look."""

    @abstractmethod
    def stop(self, stops: Sequence[int]) -> list[Outcome]:
        """End what runs and forget what waits.

        Args:
            stops: the signals that asked for it, none after an error of ours; it grows when somebody asks again, which
                means: at once.

        Returns:
            The outcomes of those that ran.
        """


def run(
    trials: Sequence[Trial],
    engine: Engine,
    *,
    retries: int = 0,
    console: Console | None = None,
) -> list[Outcome]:
    """Run the trials in their order and return their outcomes in the same order.

    A trial that is done (`Status.finished`) is kept as it is. One that fails doesn't stop the others; its reasons stand
    in its status, and the last is shown at the end. Output goes to `logs/FOLDER.log` beside the trial's folder.

    Args:
        trials: what to run; names are unique.
        engine: where.
        retries: how often a trial that failed is tried again, after the others, unless it is its settings' fault.
        console: where to show progress (default: standard error).

    Raises:
        KeyboardInterrupt: after Ctrl-C, a termination signal or a hang-up, when every trial has been stopped; says
            what stays.
        ConfigError: two trials have one name, or the engine can't run them.
    """
    _require_unique([trial.name for trial in trials])
    announce(trials)
    outcomes: dict[str, Outcome] = {}
    watch = Watch.over([(trial.name, trial.folder) for trial in trials], engine.slots, console)
    with watch, _stop_signals() as stops:
        if waiting := list(_unfinished(trials, outcomes, watch)):
            with engine:
                engine.submit(waiting)
                _attend(engine, len(trials), retries, outcomes, watch, stops)
    _show_failures(list(outcomes.values()), watch.console)
    if stops:
        raise KeyboardInterrupt(_interruption(len(trials), list(outcomes.values())))
    return [outcomes[trial.name] for trial in trials]


def _attend(
    engine: Engine,
    expected: int,
    retries: int,
    outcomes: dict[str, Outcome],
    watch: Watch,
    stops: Sequence[int],
) -> None:
    """Until every trial has an outcome, or somebody asks for an end."""
    tries = Counter[str]()
    again: set[str] = set()
    try:
        while (len(outcomes) < expected or again) and not stops:
            time.sleep(POLL)
            for event in engine.look():
                name = event.trial.name
                if isinstance(event, Started):
                    watch.started(name, event.place)
                    continue
                outcomes[name] = event
                again.discard(name)
                watch.finished(name, event.state, event.reason or "")
                tries[name] += event.again == "maybe"  # what has seen to it that the next is another needs no luck
                if event.state == "failed" and event.again != "no" and tries[name] <= retries:
                    again.add(name)
                    engine.submit([event.trial])
                    watch.waits(name)
            watch.tick()
    finally:
        for outcome in engine.stop(stops):
            outcomes[outcome.trial.name] = outcome
            watch.finished(outcome.trial.name, "stopped" if outcome.interrupted else outcome.state)


def _require_unique(names: Sequence[str]) -> None:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ConfigError(f"trials of one sweep have names of their own, found twice: {', '.join(twice)}")


def _unfinished(trials: Sequence[Trial], outcomes: dict[str, Outcome], watch: Watch) -> Iterator[Trial]:
    for trial in trials:
        if Status.finished(trial.folder):
            outcomes[trial.name] = Outcome(trial, "kept")
            watch.finished(trial.name, "kept", "as it was done before")
        else:
            yield trial


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals that ask for an end, to be acted on between two looks and never in the middle of a start."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only the main thread may set handlers, and what is ignored on purpose (nohup) stays ignored.
        with suppress(ValueError):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_failures(outcomes: Sequence[Outcome], console: Console) -> None:
    failed = [outcome for outcome in outcomes if outcome.state == "failed" and not outcome.interrupted]
    if not failed:
        return
    console.print(f"\n{len(failed)} of {len(outcomes)} trials failed:", style="red", highlight=False)
    for outcome in failed:
        console.print(f"  {outcome.trial.name}: {outcome.reason}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"    log: {outcome.trial.log}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _interruption(total: int, outcomes: Sequence[Outcome]) -> str:
    kept = sum(outcome.state in ("done", "kept") for outcome in outcomes)
    return f"Interrupted. {kept} of {total} trials are done and stay; the same command again does the others."
