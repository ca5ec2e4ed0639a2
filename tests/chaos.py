"""A sweep of twelve trials in which everything goes wrong that can, the same on each engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from maskbench.study.runs import read_runs
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Trial

TRIAL = """
import json, os, pathlib, signal, sys, time
fault, folder = sys.argv[1], pathlib.Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
notes = folder.parent / "notes"
def note(word):
    with notes.open("a") as file:
        file.write(f"{word} {folder.name} {os.getpid()}\\n")
def status(state, **rest):
    part = folder / f".part-{os.getpid()}"
    part.write_text(json.dumps(dict(state=state, pid=os.getpid(), owner=os.environ["MASKBENCH_OWNER"], **rest)))
    part.replace(folder / "status.json")
first = f"begin {folder.name} " not in (notes.read_text() if notes.exists() else "")
if not os.fork():  # as a loader's worker or another rank
    note("child"); time.sleep(600)
note("begin")
status("running")
time.sleep(0.4)
if fault == "raises": raise ValueError("no luck today")
if fault == "memory": raise MemoryError("tried to allocate 2.00 GiB")
if fault == "killed" and first: print("half way", flush=True); os.kill(os.getpid(), signal.SIGKILL)
if fault == "hangs" and first: time.sleep(600)
if fault == "slow" and first: time.sleep(2)
(folder / "metrics.json").write_text('{"segm": {"AP": 0.5}}')
status("done")
note("done")
"""

FAULTS = ("", "raises", "", "", "", "killed", "hangs", "memory", "slow", "", "", "")
"""The first sweep is gone before the sixth begins."""


def name(seed: int) -> str:
    return f"solo-seed{seed}-0000000{seed % 10}"


SOUND = {name(seed) for seed, fault in enumerate(FAULTS) if not fault}
SLOW = name(FAULTS.index("slow"))


def trials(study: Path) -> list[Trial]:
    command = [sys.executable, "-S", "-c", TRIAL]
    return [
        Trial(name(seed), [*command, fault, str(study / name(seed))], study / name(seed))
        for seed, fault in enumerate(FAULTS)
    ]


SWEEP = """
import sys
from pathlib import Path
from rich.console import Console
from chaos import trials
from maskbench.sweep.engine import run
{engine}
outcomes = run(trials(Path(sys.argv[1])), engine, retries=1, console=Console(width=200))
"""


def sweep(study: Path, code: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """A sweep as a process of its own."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, str(study)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        # a shell's background jobs ignore it, and what they start with them
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def survives(
    study: Path,
    engine: str,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
    orphans: bool = False,
) -> str:
    """Kill the sweep in the middle, start it again, and hold it to what a sweep promises; returns what it printed.

    Args:
        study: folder of the trials.
        engine: code that makes one.
        meanwhile: called once trials run in the second sweep.
        environment: of the sweeps.
        orphans: whether trials may live on when the sweep is gone (a cluster's do).
    """
    code = SWEEP.format(engine=engine)
    first = sweep(study, code, environment or {})
    wait_until(lambda: count(study, "done") >= 2, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    if not orphans:
        wait_until(lambda: not alive(study))
    second = sweep(study, code, environment or {})
    wait_until(lambda: count(study, "done") >= 4, second)
    meanwhile()
    text, _ = second.communicate(timeout=240)
    assert second.returncode == 0, text
    wait_until(lambda: not alive(study))
    done = Counter(trial for word, trial, _ in notes(study) if word == "done")
    rows = {run.seed: run for run in read_runs(study)}
    assert len(rows) == len(FAULTS)
    assert all(times == 1 for times in done.values())
    failing = {seed for seed, fault in enumerate(FAULTS) if fault in ("raises", "memory")}
    assert {seed for seed, run in rows.items() if run.state == "failed"} == failing, text
    assert {run.state for seed, run in rows.items() if seed not in failing} == {"done"}
    assert {rows[seed].reason for seed in failing} == {
        "ValueError: no luck today",
        "MemoryError: tried to allocate 2.00 GiB",
    }
    return text


POLITE = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
own = dict(state="running", pid=os.getpid(), owner=os.environ["MASKBENCH_OWNER"])
(folder / "status.json").write_text(json.dumps(own))
with (folder.parent / "notes").open("a") as file: file.write(f"begin {folder.name} {os.getpid()}\\n")
try:
    time.sleep(600)
except KeyboardInterrupt:
    (folder / "written").touch()
"""

ENDED = """
import sys
from pathlib import Path
from rich.console import Console
from chaos import POLITE
from maskbench.sweep.engine import run
from maskbench.sweep.trial import Trial
{engine}
folder = Path(sys.argv[1]) / name
engine.patience = 20
try:
    run([Trial(name, [sys.executable, "-S", "-c", POLITE, str(folder)], folder)], engine, console=Console(width=200))
except KeyboardInterrupt as interruption:
    print(interruption)
    sys.exit(130)
"""


def is_ended(study: Path, engine: str, number: signal.Signals, environment: Mapping[str, str] | None = None) -> None:
    """Ask a sweep for an end, and see its trial write down what it has."""
    code = ENDED.format(engine=f"name = {name(0)!r}\n{engine}")
    asked = sweep(study, code, environment or {})
    wait_until(lambda: bool(working(study, name(0))), asked)
    time.sleep(1)  # it sleeps by now
    began = time.monotonic()
    asked.send_signal(number)
    text, _ = asked.communicate(timeout=60)
    assert asked.returncode == 130, text
    assert "0 of 1 trials are done and stay" in text
    assert time.monotonic() - began < 20
    assert (study / name(0) / "written").exists()
    status = Status.read(study / name(0))
    assert (status.state, status.reason) == ("failed", "interrupted")
    wait_until(lambda: not alive(study))


def notes(study: Path) -> list[list[str]]:
    """(word, trial, process) of all that trials noted."""
    file = study / "notes"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def count(study: Path, word: str) -> int:
    return sum(noted == word for noted, _, _ in notes(study))


def working(study: Path, trial: str) -> list[str]:
    """The process that is at a trial."""
    begun = [pid for word, noted, pid in notes(study) if (word, noted) == ("begin", trial)]
    return [pid for pid in begun if pid in alive(study)]


def alive(study: Path) -> list[str]:
    """Processes of trials that still run; what no init has collected is dead all the same."""
    found = []
    for _, _, pid in notes(study):
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
                found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(come: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not come():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
