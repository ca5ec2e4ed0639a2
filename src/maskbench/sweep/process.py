"""A trial as a process of this machine: its environment, its signs of life, and how it ended.

It has a session of its own, so that one which raises, is killed or leaves children behind takes nobody with it; and it
is on a leash, so that none outlives the process that was to watch over it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from maskbench.errors import RunError
from maskbench.sweep import leash
from maskbench.sweep.status import HEARTBEAT, OWNER, Status, last_sign
from maskbench.sweep.trial import Outcome, Trial

POLL = 0.1
"""Seconds between two looks at a process."""

RANK_VARIABLES = re.compile(
    r"(LOCAL_|GROUP_|NODE_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_\w+|TORCHELASTIC_\w+|SLURM_(NTASKS\w*|PROCID|LOCALID|NODEID)"
)
"""What tells a process that it is one rank of a larger job: a trial that inherits it waits for the others for ever."""

ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit|Killed)\b.*", re.IGNORECASE)
TAIL_BYTES = 16_384


@dataclass
class TrialProcess:
    """One attempt at a trial."""

    trial: Trial
    process: subprocess.Popen[bytes]
    leash: int
    """The pipe's end whose closing kills it."""
    offset: int
    """Where its output begins in the log."""
    began: float
    sign: float = 0.0
    """Its last sign of life that was seen, by the clock of the files …"""
    heard: float = field(default_factory=time.monotonic)
    """… and when it was seen, by a clock that stands still while the machine sleeps."""
    silent: bool = False
    """Whether it was killed since nothing was heard of it."""

    @classmethod
    def start(
        cls, trial: Trial, threads: int, owner: str, *, gpus: Sequence[str] = (), folder: str | None = None
    ) -> TrialProcess:
        """Start it.

        Args:
            trial: which.
            threads: CPU threads that it may take.
            owner: of the attempt; it has no other at this trial (`Status.owner`).
            gpus: device ids, as CUDA_VISIBLE_DEVICES names them; none: leave it as it is.
            folder: that the command is run in.
        """
        trial.log.parent.mkdir(parents=True, exist_ok=True)
        held, kept = os.pipe()
        try:
            with trial.log.open("ab") as output:
                offset = output.tell()
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(leash.__file__)), str(held), *trial.command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=_environment(threads, gpus) | {OWNER: owner},
                    cwd=folder,
                    pass_fds=(held,),
                    start_new_session=True,
                )
        except BaseException:
            os.close(kept)
            raise
        finally:
            os.close(held)
        return cls(trial, process, kept, offset, time.monotonic())

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def quiet_for(self) -> float:
        """Seconds since its last sign of life: its heartbeat or a line of its output."""
        if (sign := last_sign(self.trial.folder / HEARTBEAT, self.trial.log)) != self.sign:
            self.sign, self.heard = sign, time.monotonic()
        return time.monotonic() - self.heard

    def kill_if_silent(self, silence: float | None) -> None:
        """Kill it when nothing was heard of it for so many seconds."""
        if silence is not None and not self.silent and self.quiet_for() > silence:
            self.silent = True
            self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """To the whole session: loader workers and ranks are part of the trial."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def end(self, interrupted: bool = False) -> Outcome:
        """Read how it went; write it into the status where the trial could not do so itself."""
        self.signal(signal.SIGKILL)
        code = self.process.wait()
        os.close(self.leash)
        seconds = time.monotonic() - self.began
        try:
            return self._outcome(code, seconds, interrupted)
        except (RunError, OSError) as error:  # one trial's file, or a full disk, ends no sweep
            return Outcome(self.trial, "failed", seconds, f"{type(error).__name__}: {error}", interrupted=interrupted)

    def _outcome(self, code: int, seconds: float, interrupted: bool) -> Outcome:
        folder = self.trial.folder
        if Status.finished(folder):
            return Outcome(self.trial, "done", seconds)
        status = Status.read(folder)
        own = status if status and status.pid == self.process.pid else None
        if own and own.state == "failed":
            reason = own.reason or self._reason(code)
            return Outcome(self.trial, "failed", seconds, reason, own.again, interrupted)
        reason = "interrupted" if interrupted else self._reason(code)
        # Somebody else's process may be at the trial, and this one was refused: then that status is not ours to write.
        if own or not (status and status.state == "running" and not status.cut(folder)):
            # Without a status of this process (it died before its first line), the attempt counts all the same.
            attempts, earlier = (status.attempts + 1, status.reasons) if status else (1, [])
            new = Status(pid=self.process.pid, attempts=attempts, earlier=earlier)
            (own or new).failed(reason).write(folder)
        return Outcome(self.trial, "failed", seconds, reason, interrupted=interrupted)

    def _reason(self, code: int) -> str:
        lines = _tail(self.trial.log, self.offset)
        error = error_line(lines)
        if self.silent:
            return f"no sign of life for {self.quiet_for():.0f} s, so it was killed; last line: {error}"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}; last line: {error}"
        return error if code else f"ended without saying that it is done; last line: {error}"


def run_alone(
    trial: Trial,
    threads: int,
    owner: str,
    *,
    folder: str,
    silence: float | None,
    patience: float,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """One attempt from start to end, where a cluster has put this process.

    Args:
        trial, threads, owner, folder: as `TrialProcess.start` has them.
        silence: seconds without a sign of life after which it is killed; None: never.
        patience: seconds that it has, once this process is interrupted, to write down what it has.
        environment: variables that the trial gets beside this process's.

    Raises:
        BaseException: whatever ends this process, once the trial has ended.
    """
    if Status.finished(trial.folder):  # a cluster may have lost what came after its end, and start it again
        return Outcome(trial, "done")
    os.environ.update(environment or {})
    process = TrialProcess.start(trial, threads, owner, folder=folder)
    try:
        while process.alive:
            time.sleep(POLL)
            process.kill_if_silent(silence)
    except BaseException:
        stop([process], [], patience)
        process.end(interrupted=True)
        raise
    return process.end()


def stop(processes: Sequence[TrialProcess], stops: Sequence[int], patience: float) -> None:
    """SIGINT, so that a trial can write down what it has; then SIGTERM, SIGKILL. One more of `stops` kills at once."""
    asked = len(stops)
    for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, patience / 6), (signal.SIGKILL, patience / 6)):
        alive = [process for process in processes if process.alive]
        for process in alive:
            process.signal(number if len(stops) == asked else signal.SIGKILL)
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(process.alive for process in alive):
            if number is not signal.SIGKILL and len(stops) > asked:
                break
            time.sleep(POLL)


def _environment(threads: int, gpus: Sequence[str]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not RANK_VARIABLES.fullmatch(name)}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    # A killed process takes its unwritten lines along, and those tell why.
    env.setdefault("PYTHONUNBUFFERED", "1")
    if gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return env


def error_line(lines: Sequence[str]) -> str:
    """The last that says what went wrong, or else the last."""
    return next((line for line in reversed(lines) if ERROR_LINE.match(line)), lines[-1] if lines else "no output")


def _tail(log: Path, offset: int) -> list[str]:
    """The last lines of this attempt's output, without empty ones."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(offset, end - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
