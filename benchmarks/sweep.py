"""What a sweep costs beside its trainings: seconds a trial, a second start, reading and tabling, the starter's memory.

    python benchmarks/sweep.py [--trials 20] [--repeats 3] [--seeds 16] [--many 1000]

Nothing is trained. Trials are processes that write their results and are done, in a pool and one after another. The
second start is the sweep's own command on a finished study (`finished_study`: thirteen methods × one or all seeds),
which is then read and tabled, without the intervals that the bootstrap takes its time for and with them. Memory is what
each of many trials finds its starter to hold (Linux), once with a line a change and once with the table of a terminal.
The last line is JSON. Drawn shapes come from the cache, or are drawn first.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from maskbench.sweep.engine import run
from maskbench.sweep.pool import Pool
from maskbench.sweep.trial import Trial

GOALS = {"trial": 3.0, "second start": 10.0, "table": 5.0, "growth": 1.0}
"""Seconds, and megabytes between the hundredth trial and the last."""

TRIVIAL = """
import json, os, sys
folder, parent = sys.argv[1], f"/proc/{os.getppid()}"
held = dict(line.split(":", 1) for line in open(f"{parent}/status"))
found = {"kb": int(held["VmRSS"].split()[0]), "files": len(os.listdir(f"{parent}/fd"))}
for name, content in ("metrics", found), ("status", {"state": "done"}):
    with open(f"{folder}/{name}.json", "w") as file:
        json.dump(content, file)
"""
"""A trial: what its starter holds, for results, and that it is done."""


def trivial(study: Path, count: int) -> list[Trial]:
    """Trials without a training, each with the history and the config of one epoch."""
    trials = []
    for seed in range(count):
        folder = study / f"trivial-seed{seed}-00000000"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("trainer: {max_epochs: 1}\n")
        (folder / "history.csv").write_text("epoch,step,images_per_second,tune/AP\n0,10,50.0,0.5\n")
        trials.append(Trial(folder.name, [sys.executable, "-S", "-c", TRIVIAL, str(folder)], folder))
    return trials


# The pool -------------------------------------------------------------------------------------------------------------


def a_trial(count: int, repeats: int) -> tuple[float, float]:
    """Seconds a trial in a pool of one slot, and started one after another; medians of turns."""
    turns = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            pooled, direct = (trivial(Path(folder) / name, count) for name in ("pooled", "direct"))
            began = perf_counter()
            run(pooled, Pool(1), console=Console(file=io.StringIO()))
            between = perf_counter()
            for trial in direct:
                subprocess.run(trial.command, check=True)
            turns.append((between - began, perf_counter() - between))
    in_pool, alone = (statistics.median(seconds) / count for seconds in zip(*turns, strict=True))
    return in_pool, alone


def memory(count: int, live: bool) -> dict[str, list[int]]:
    """What this process holds while each of the trials runs, eight at once: kilobytes and open files."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        trials = trivial(Path(folder), count)
        run(trials, Pool(8), console=Console(file=nowhere, force_terminal=live, width=120, height=50))
        found = [json.loads((trial.folder / "metrics.json").read_text()) for trial in trials]
    return {name: [one[name] for one in found] for name in ("kb", "files")}


# A finished study -----------------------------------------------------------------------------------------------------


def second_start(runs: Path, seeds: int) -> float:
    """Seconds of the sweep's command over trials that are done."""
    import finished_study

    began = perf_counter()
    command = [sys.executable, "-m", "maskbench.train", "-m", *finished_study.overrides(runs, seeds)]
    # a folder of another name would be trained: better an end than hours
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20 * GOALS["second start"])
    seconds = perf_counter() - began
    told = json.loads(ended.stdout.splitlines()[-1])
    if (kept := len(told["kept"])) != seeds * len(finished_study.METHODS):
        raise RuntimeError(f"the second start kept {kept} trials of {seeds * len(finished_study.METHODS)}: {told}")
    return seconds


def tabled(study: Path) -> dict[str, float]:
    """Seconds of each step from run folders to a report, in a process that has imported what it needs."""
    from maskbench.study.board import Board, write_leaderboard
    from maskbench.study.leaderboard import group, tabulate
    from maskbench.study.report import write_report
    from maskbench.study.runs import read_runs

    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = perf_counter()
        yield
        seconds[name] = perf_counter() - began

    with timed("read"):
        runs = read_runs(study)
    with timed("table"):
        table = tabulate(runs)
        board = Board(study, runs, table, group(table))
        write_leaderboard(board)
    with timed("page"):
        write_report(board)
    with timed("all, with intervals"):
        board = Board.read(study)
        write_leaderboard(board)
        write_report(board)
    if len(runs) != len(board.groups[0].trials) or not board.groups[0].uncertainty:
        raise RuntimeError(f"{len(runs)} runs were not all tabled: {[len(found.trials) for found in board.groups]}")
    return seconds


# ----------------------------------------------------------------------------------------------------------------------


def apart(name: str, *arguments: Any) -> Any:
    """What a process of its own finds."""
    command = [sys.executable, __file__, "--only", name, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(held: dict[str, list[int]]) -> tuple[float, int]:
    """Megabytes and open files from about the hundredth trial to the last ones (eight run at once: their medians)."""
    count = len(held["kb"])
    kb, files = ([statistics.median(values[at : at + 9]) for at in (95, count - 9)] for values in held.values())
    return (kb[1] - kb[0]) / 2**10, int(files[1] - files[0])


def show(rows: Sequence[tuple[str, str, str]]) -> None:
    table = Table(title="A sweep beside its trainings")
    for heading in ("what", "goal", "found"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="in a pool of one slot")
    parser.add_argument("--repeats", type=int, default=3, help="turns of these")
    parser.add_argument("--seeds", type=int, default=16, help="of thirteen methods, in the finished study")
    parser.add_argument("--many", type=int, default=1000, help="trials of one pool, whose memory is watched")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        name, *given = chosen.only
        print(json.dumps(tabled(Path(given[0])) if name == "tabled" else memory(int(given[0]), name == "live")))
        return
    import finished_study  # which needs torch: what only starts trials has none, and its memory is to be told

    pooled, direct = a_trial(chosen.trials, chosen.repeats)
    held = {name: apart(name, chosen.many) for name in ("lines", "live")}
    with tempfile.TemporaryDirectory() as folder:
        studies = {seeds: finished_study.write(Path(folder), seeds) for seeds in (1, chosen.seeds)}
        starts = {seeds: second_start(Path(folder), seeds) for seeds in studies}
        steps = apart("tabled", studies[chosen.seeds])
    few, many = (seeds * len(finished_study.METHODS) for seeds in (1, chosen.seeds))
    growth = {name: grown(found) for name, found in held.items()}
    table = steps["read"] + steps["table"]
    goal = {name: f"≤ {value:g} {'MB' if name == 'growth' else 's'}" for name, value in GOALS.items()}
    show(
        [
            ("a trial of the pool beyond its process", goal["trial"], f"{pooled - direct:.2f} s"),
            (f"second start, {few} trials done", goal["second start"], f"{starts[1]:.1f} s"),
            (f"second start, {many} trials done", goal["second start"], f"{starts[chosen.seeds]:.1f} s"),
            ("  a trial beyond the first seed", "", f"{(starts[chosen.seeds] - starts[1]) / (many - few):.3f} s"),
            (f"{many} runs read and tabled", goal["table"], f"{table:.1f} s"),
            ("  and the page with its plots, without intervals", "", f"{table + steps['page']:.1f} s"),
            ("  all of it with bootstrap intervals", "", f"{steps['all, with intervals']:.1f} s"),
            *(
                (f"memory from trial 100 to {chosen.many}, {name}", goal["growth"], f"{grew:+.2f} MB, {files:+} files")
                for name, (grew, files) in growth.items()
            ),
        ]
    )
    found = {"pooled": pooled, "direct": direct, "second_start": starts, "tabled": steps}
    print(json.dumps(vars(chosen) | found | {"growth": growth}))


if __name__ == "__main__":
    main()
