"""status.json: what a trial says of itself, readable at any moment."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from maskbench.atomic import replace_text
from maskbench.errors import Again, RunError

State = Literal["running", "done", "failed"]
FILE = "status.json"
KINDS: dict[str, Any] = {
    "attempts": int,
    "earlier": list,
    "pid": int | None,
    **dict.fromkeys(("reason", "started", "ended", "host", "owner"), str | None),
}
"""What its fields hold."""
RESULTS = "metrics.json"
"""What a trial writes before it says that it is done."""
HEARTBEAT = ".heartbeat"
"""The file that a trial touches while it works: when it was touched last is its last sign of life."""
OWNER = "MASKBENCH_OWNER"
"""The variable that names the engine's attempt to its process."""
LOST = 600.0
"""Seconds without a sign of life after which a process of another machine counts as gone."""


def now() -> str:
    """The time as status.json has it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """The state of a trial.

    Args:
        state: running, done or failed.
        attempts: how often it was started, this time included.
        reason: why it failed.
        again: whether another attempt may go well.
        earlier: why the attempts before failed, in their order.
        started, ended: of this attempt; UTC, ISO 8601.
        pid, host: the process of this attempt.
        owner: who started it and starts no second one before it has ended; None for a single run.
    """

    state: State = "running"
    attempts: int = 1
    reason: str | None = None
    again: Again = "maybe"
    earlier: list[str] = field(default_factory=list)
    started: str = field(default_factory=now)
    ended: str | None = None
    pid: int | None = field(default_factory=os.getpid)
    host: str | None = field(default_factory=socket.gethostname)
    owner: str | None = field(default_factory=lambda: os.environ.get(OWNER))

    @classmethod
    def begin(cls, folder: Path) -> Status:
        """Write that this process runs the trial, as one more attempt."""
        before = cls.read(folder)
        status = cls(attempts=before.attempts + 1, earlier=before.reasons) if before else cls()
        status.write(folder)
        return status

    @classmethod
    def read(cls, folder: Path) -> Status | None:
        """The status of the trial in `folder`, None when it has none; `RunError` when the file can't be read."""
        path = folder / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            state = found["state"]
            if state not in get_args(State):
                raise ValueError(f"a state is one of {', '.join(get_args(State))}, found {state!r}")
            for name, kind in KINDS.items():
                if name in found and not isinstance(found[name], kind):
                    raise ValueError(f"{name} is {found[name]!r:.40}")
            # Fields that a later version writes are no reason to refuse an answer.
            return cls(**{item.name: found[item.name] for item in fields(cls) if item.name in found})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunError(
                f"{path}: not a trial's status ({error}); delete the file, and the trial runs anew"
            ) from error

    def write(self, folder: Path) -> None:
        """Replace the file in one step, so that no reader ever sees half of it."""
        replace_text(folder / FILE, json.dumps(asdict(self), indent=2) + "\n")

    def write_anyway(self, folder: Path) -> None:
        """As `write`; without room for a second file into the one that is there, of which half may be seen."""
        try:
            self.write(folder)
        except OSError:
            with suppress(OSError), (folder / FILE).open("r+b") as file:
                file.write(json.dumps(asdict(self), indent=2).encode() + b"\n")
                file.truncate()

    @property
    def reasons(self) -> list[str]:
        """Why all attempts so far failed; what was cut and wrote nothing down has no reason."""
        return [*self.earlier, *([self.reason] if self.reason else [])]

    def done(self) -> Status:
        return replace(self, state="done", reason=None, ended=now())

    def failed(self, reason: str, again: Again = "maybe") -> Status:
        return replace(self, state="failed", reason=reason, again=again, ended=now())

    @classmethod
    def finished(cls, folder: Path) -> Status | None:
        """The status of a trial that is done: it says so and has its results; None when it is to be run (again)."""
        status = cls.read(folder)
        return status if status and status.state == "done" and (folder / RESULTS).is_file() else None

    def cut(self, folder: Path) -> bool:
        """Whether it says running and its process is gone; of a process elsewhere only its signs of life are known."""
        if self.state != "running" or self.pid is None:
            return False
        if self.here:
            return not _exists(self.pid)
        return time.time() - last_sign(folder / FILE, folder / HEARTBEAT) > LOST

    @property
    def here(self) -> bool:
        """Whether its process is, or was, on this machine."""
        return self.host == socket.gethostname()

    @property
    def ours(self) -> bool:
        """Whether whoever started this process started that one: it has ended, then."""
        return self.owner is not None and self.owner == os.environ.get(OWNER)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def last_sign(*files: Path) -> float:
    """When one of the files was written last, in seconds of the clock; 0 where there is none."""
    signs = [0.0]
    for file in files:
        with suppress(OSError):
            signs.append(file.stat().st_mtime)
    return max(signs)
