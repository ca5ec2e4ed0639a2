"""The engine `pool`: trials as processes of this machine, a number of them at once.

Every trial is a single run in a session of its own, so that one which raises, is killed or leaves children behind
takes nobody with it. The pool starts, watches and stops; what a trial does is its command's affair, and it is done when
its status says so and its results are there.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from maskbench.errors import ConfigError, MaskbenchError
from maskbench.sweep.status import HEARTBEAT, Status
from maskbench.sweep.watch import Watch

POLL = 0.1
"""Seconds between two looks at the processes."""

RANK_VARIABLES = re.compile(r"(LOCAL_|GROUP_|NODE_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_\w+|TORCHELASTIC_\w+")
"""What tells a process that it is one rank of a larger job: a trial that inherits it waits for the others for ever."""

OWN_ERRORS = {error.__name__ for error in MaskbenchError.__subclasses__()}
"""What fails so fails again: the settings, the data or the weights are to be mended first."""

ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit|Killed)\b.*", re.IGNORECASE)
TAIL_BYTES = 16_384


@dataclass(frozen=True)
class Trial:
    """A run to be made: its name, its command, and the folder it writes."""

    name: str
    command: Sequence[str]
    folder: Path


End = Literal["done", "kept", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: done now, kept from before, or failed with a reason; its log and the seconds it took."""

    trial: Trial
    state: End
    log: Path
    seconds: float = 0.0
    reason: str | None = None


@dataclass
class _Running:
    trial: Trial
    slot: int
    process: subprocess.Popen[bytes]
    log: Path
    offset: int
    began: float
    since: float
    """When it began, by the clock of the files."""
    silent: bool = False
    """Whether it was killed since nothing was heard of it."""

    def quiet_for(self) -> float:
        """Seconds since its last sign of life: its heartbeat or a line of its output."""
        signs = [self.since]
        for path in (self.trial.folder / HEARTBEAT, self.log):
            with suppress(OSError):
                signs.append(path.stat().st_mtime)
        return time.time() - max(signs)

    def signal(self, number: signal.Signals) -> None:
        """To the whole session: loader workers and ranks are part of the trial."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def run_pool(
    trials: Sequence[Trial],
    slots: int,
    threads: int = 1,
    *,
    gpus: Sequence[str] = (),
    retries: int = 0,
    silence: float | None = None,
    console: Console | None = None,
    patience: float = 30.0,
) -> list[Outcome]:
    """Run the trials in their order, `slots` at once, and return their outcomes in the same order.

    A trial that is done (`Status.finished`) is kept as it is. One that fails doesn't stop the others; its reasons stand
    in its status, and the last is shown at the end. Output goes to `logs/FOLDER.log` beside the trial's folder.

    Args:
        trials: what to run; names are unique.
        slots: trials at once.
        threads: CPU threads a trial.
        gpus: device ids to be shared out among the slots, as CUDA_VISIBLE_DEVICES names them; none: leave it as it is.
        retries: how often a trial that failed is tried again, after the others, unless it is its settings' fault.
        silence: seconds without a sign of life after which a trial is killed; None: never.
        console: where to show progress (default: standard error).
        patience: seconds that a trial has, once it is interrupted, to write down what it has.

    Raises:
        KeyboardInterrupt: after Ctrl-C, a termination signal or a hang-up, when every trial has been stopped; says
            what stays.
        ConfigError: when slots, GPUs or names don't go together.
    """
    shares = _share(gpus, slots)
    _require_unique([trial.name for trial in trials])
    outcomes: dict[str, Outcome] = {}
    running: list[_Running] = []
    watch = Watch.over([(trial.name, trial.folder) for trial in trials], slots, console)
    with watch, _stop_signals() as stops:
        waiting, tries = deque(_unfinished(trials, outcomes, watch)), Counter[str]()
        free = sorted(range(slots), reverse=True)
        try:
            while (waiting or running) and not stops:
                while waiting and free:
                    slot = free.pop()
                    running.append(_start(waiting.popleft(), slot, threads, shares[slot]))
                    watch.started(running[-1].trial.name)
                time.sleep(POLL)
                if silence is not None:
                    _kill_silent(running, silence)
                for ended in [item for item in running if item.process.poll() is not None]:
                    running.remove(ended)
                    free.append(ended.slot)
                    outcome = outcomes[ended.trial.name] = _end(ended)
                    watch.finished(ended.trial.name, outcome.state, outcome.reason or "")
                    tries[ended.trial.name] += 1
                    if _worth_another(outcome) and tries[ended.trial.name] <= retries:
                        waiting.append(ended.trial)
                        watch.waits(ended.trial.name)
                watch.tick()
        finally:
            if running:
                _stop(running, stops, patience)
            for item in running:
                outcomes[item.trial.name] = _end(item, interrupted=True)
                watch.finished(item.trial.name, "stopped")
    _show_failures(list(outcomes.values()), watch.console)
    if stops:
        raise KeyboardInterrupt(_interruption(len(trials), list(outcomes.values())))
    return [outcomes[trial.name] for trial in trials]


def _share(gpus: Sequence[str], slots: int) -> list[tuple[str, ...]]:
    """GPUs of each slot: none belongs to two."""
    if slots < 1:
        raise ConfigError(f"a pool needs at least one slot, found slots={slots}")
    if gpus and len(gpus) < slots:
        raise ConfigError(
            f"{slots} slots but {len(gpus)} GPUs ({', '.join(gpus)}): set slots to {len(gpus)} or fewer, "
            "so that no two trials share one"
        )
    each = len(gpus) // slots
    return [tuple(gpus[slot * each : (slot + 1) * each]) for slot in range(slots)]


def _require_unique(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"trials of one sweep have names of their own, found twice: {', '.join(twice)}")


def _unfinished(trials: Sequence[Trial], outcomes: dict[str, Outcome], watch: Watch) -> Iterator[Trial]:
    for trial in trials:
        if Status.finished(trial.folder):
            outcomes[trial.name] = Outcome(trial, "kept", log_file(trial))
            watch.finished(trial.name, "kept", "as it was done before")
        else:
            yield trial


def log_file(trial: Trial) -> Path:
    """Where the output of all attempts at a trial goes."""
    return trial.folder.parent / "logs" / f"{trial.folder.name}.log"


def _start(trial: Trial, slot: int, threads: int, gpus: Sequence[str]) -> _Running:
    log = log_file(trial)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        offset = output.tell()
        process = subprocess.Popen(
            list(trial.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(threads, gpus),
            start_new_session=True,
        )
    return _Running(trial, slot, process, log, offset, time.monotonic(), time.time())


def _environment(threads: int, gpus: Sequence[str]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not RANK_VARIABLES.fullmatch(name)}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # A killed process takes its unwritten lines along, and those tell why.
    env.setdefault("PYTHONUNBUFFERED", "1")
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return env


def _end(ended: _Running, interrupted: bool = False) -> Outcome:
    """Read how it went; write it into the status where the trial could not do so itself."""
    ended.signal(signal.SIGKILL)
    code = ended.process.wait()
    seconds = time.monotonic() - ended.began
    if Status.finished(ended.trial.folder):
        return Outcome(ended.trial, "done", ended.log, seconds)
    status = Status.read(ended.trial.folder)
    own = status if status and status.pid == ended.process.pid else None
    if own and own.state == "failed":
        reason = own.reason or _reason(code, ended)
    else:
        reason = "interrupted" if interrupted else _reason(code, ended)
        # Somebody else's process may be at the trial, and this one was refused: then that status is not ours to write.
        if own or not (status and status.state == "running" and not status.cut):
            # Without a status of this process (it died before its first line), the attempt counts all the same.
            attempts, earlier = (status.attempts + 1, status.reasons) if status else (1, [])
            new = Status(pid=ended.process.pid, attempts=attempts, earlier=earlier)
            (own or new).failed(reason).write(ended.trial.folder)
    return Outcome(ended.trial, "failed", ended.log, seconds, reason)


def _kill_silent(running: Sequence[_Running], silence: float) -> None:
    for item in running:
        if not item.silent and item.quiet_for() > silence:
            item.silent = True
            item.signal(signal.SIGKILL)


def _worth_another(outcome: Outcome) -> bool:
    """Whether what failed may go well another time."""
    return outcome.state == "failed" and (outcome.reason or "").split(":")[0] not in OWN_ERRORS


def _reason(code: int, ended: _Running) -> str:
    lines = _tail(ended.log, ended.offset)
    error = next((line for line in reversed(lines) if ERROR_LINE.match(line)), lines[-1] if lines else "no output")
    if ended.silent:
        return f"no sign of life for {ended.quiet_for():.0f} s, so it was killed; last line: {error}"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; last line: {error}"
    return error if code else f"ended without saying that it is done; last line: {error}"


def _tail(log: Path, offset: int) -> list[str]:
    """The last lines of this attempt's output, without empty ones."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(offset, end - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]


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


def _stop(running: Sequence[_Running], stops: Sequence[int], patience: float) -> None:
    """SIGINT, so that a trial can write down what it has; then SIGTERM, SIGKILL. A second Ctrl-C kills at once."""
    asked = len(stops)
    for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, patience / 6), (signal.SIGKILL, patience / 6)):
        alive = [item for item in running if item.process.poll() is None]
        for item in alive:
            item.signal(number if len(stops) == asked else signal.SIGKILL)
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(item.process.poll() is None for item in alive):
            if number is not signal.SIGKILL and len(stops) > asked:
                break
            time.sleep(POLL)


def _show_failures(outcomes: Sequence[Outcome], console: Console) -> None:
    failed = [outcome for outcome in outcomes if outcome.state == "failed" and outcome.reason != "interrupted"]
    if not failed:
        return
    console.print(f"\n{len(failed)} of {len(outcomes)} trials failed:", style="red", highlight=False)
    for outcome in failed:
        console.print(f"  {outcome.trial.name}: {outcome.reason}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"    log: {outcome.log}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _interruption(total: int, outcomes: Sequence[Outcome]) -> str:
    kept = sum(outcome.state in ("done", "kept") for outcome in outcomes)
    return f"Interrupted. {kept} of {total} trials are done and stay; the same command again does the others."
