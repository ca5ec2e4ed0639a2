"""Slurm's commands, as far as submitit calls them, on this machine: `install` puts them into a folder for the PATH.

A controller for each submitted array starts its jobs, so many at once, starts again what is back in the queue, and
writes the state of each where `sacct` finds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")


def install(folder: Path) -> dict[str, str]:
    """Write the commands into `folder`; returns the environment in which they are found."""
    (folder / "jobs").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FAKE_SLURM": str(folder / "jobs")}


def jobs() -> Path:
    return Path(os.environ["FAKE_SLURM"])


def sbatch(script: str) -> None:
    number = 1 + len(list(jobs().glob("*.script")))
    (jobs() / f"{number}.script").write_text(Path(script).read_text())
    own = [sys.executable, "-S", __file__, "control", str(number)]
    with (jobs() / f"{number}.log").open("w") as log:
        subprocess.Popen(own, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    print(f"Submitted batch job {number}")


def control(number: str) -> None:
    """The life of an array: its jobs from the first to the last."""
    script = jobs() / f"{number}.script"
    array = re.search(r"--array=0-(\d+)%(\d+)", script.read_text())
    names = [f"{number}_{task}" for task in range(int(array[1]) + 1)] if array else [number]
    at_once = int(array[2]) if array else 1
    waiting, running = list(names), {}
    for name in names:
        write(name, "PENDING")
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            if read(name) == "PENDING":
                running[name] = start(name, script)
                write(name, "RUNNING", running[name].pid)
        time.sleep(0.1)
        for name, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[name]
            if read(name) == "REQUEUED":
                waiting.append(name)
                write(name, "PENDING")
            elif read(name) != "CANCELLED":
                write(name, "FAILED" if process.returncode else "COMPLETED")


def start(name: str, script: Path) -> subprocess.Popen[bytes]:
    own = {"SLURM_JOB_ID": name.replace("_", "000"), "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    if "_" in name:
        own |= dict(zip(("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), name.split("_"), strict=True))
    return subprocess.Popen(["bash", str(script)], env={**os.environ, **own}, start_new_session=True)


def srun(*words: str) -> None:
    first = next(place for place, word in enumerate(words) if word.startswith("/") and "python" in word)
    output = words[words.index("--output") + 1]
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID", ""), os.environ.get("SLURM_ARRAY_TASK_ID", "")
    for sign, value in {"%A": array, "%a": task, "%j": os.environ["SLURM_JOB_ID"], "%t": "0"}.items():
        output = output.replace(sign, value)
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.execvp(words[first], words[first:])


def sacct(*words: str) -> None:
    wanted = {words[place + 1] for place, word in enumerate(words) if word == "-j"}
    print("JobID|State|NodeList")
    for file in sorted(jobs().glob("*.state")):
        if file.stem.split("_")[0] in wanted:
            print(f"{file.stem}|{read(file.stem)}|here")


def scancel(*words: str) -> None:
    """Of whole jobs, or with `--signal` a signal to what they run."""
    asked = [word.partition("=")[2] or words[place + 1] for place, word in enumerate(words) if "--signal" in word]
    for name in [word for word in words if (jobs() / f"{word}.state").exists()]:
        pid = (jobs() / f"{name}.state").read_text().split()[1]
        if asked:
            subprocess.run(["pkill", f"-{asked[0]}", "-P", pid])
            continue
        write(name, "CANCELLED", int(pid))
        if int(pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)


def scontrol(word: str, name: str) -> None:
    assert word == "requeue"
    write(name, "REQUEUED")


def write(name: str, state: str, pid: int = 0) -> None:
    part = jobs() / f".{name}-{os.getpid()}"
    part.write_text(f"{state} {pid}")
    part.replace(jobs() / f"{name}.state")


def read(name: str) -> str:
    return (jobs() / f"{name}.state").read_text().split()[0]


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
