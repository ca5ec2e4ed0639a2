"""Who runs where from when to when: sweeps on machines with GPUs, simulated event by event, and what theory allows.

All trials are known when it begins, none fails, and none is moved once it runs. Nothing here asks how long a trial
takes before it has ended; only who orders them may.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

MACHINES, GPUS = 8, 8


@dataclass(frozen=True)
class Trial:
    """A training: of what method, its seconds, and its GPUs on one machine, or a half, quarter or eighth of one GPU."""

    method: str
    seconds: float
    gpus: float = 1.0

    def __post_init__(self) -> None:
        if self.seconds <= 0 or not (self.gpus in (0.5, 0.25, 0.125) or (self.gpus >= 1 and self.gpus % 1 == 0)):
            raise ValueError(f"a trial takes time, and whole GPUs or 1/2, 1/4 or 1/8 of one, found {self}")


@dataclass(frozen=True)
class Run:
    """A trial in its place: the machine, its GPUs there, and from when to when it holds them."""

    trial: Trial
    machine: int
    gpus: tuple[int, ...]
    began: float
    ended: float


class Cluster:
    """What is free of each GPU: 1 all of it, 0 nothing (shares are powers of two, so that sums are exact)."""

    def __init__(self, machines: int, gpus: int) -> None:
        self.free = [[1.0] * gpus for _ in range(machines)]

    def take(self, gpus: float) -> tuple[int, tuple[int, ...]] | None:
        """The machine and GPUs beside which the least stays free, now taken; None where there is no room."""
        places = []
        for machine, shares in enumerate(self.free):
            if gpus < 1:
                places += [(share, machine, (gpu,)) for gpu, share in enumerate(shares) if share >= gpus]
            else:
                whole = [gpu for gpu, share in enumerate(shares) if share == 1]
                if len(whole) >= gpus:
                    places.append((len(whole), machine, tuple(whole[: int(gpus)])))
        if not places:
            return None
        _, machine, chosen = min(places)
        self._change(machine, chosen, -gpus)
        return machine, chosen

    def give(self, run: Run) -> None:
        """What a trial held is free again."""
        self._change(run.machine, run.gpus, run.trial.gpus)

    def _change(self, machine: int, chosen: tuple[int, ...], gpus: float) -> None:
        for gpu in chosen:
            self.free[machine][gpu] += gpus / len(chosen)


def schedule(
    trials: Sequence[Trial],
    machines: int = MACHINES,
    gpus: int = GPUS,
    *,
    at_most: float = math.inf,
    latency: float = 0.0,
    overtaking: bool = True,
) -> list[Run]:
    """Start trials in their order as soon as there is room, until all have ended; returns them as they began.

    Args:
        at_most: trials at once.
        latency: seconds for which a trial holds its place before its first step.
        overtaking: a trial without room is passed by those of other sizes; else all wait behind it.

    Raises:
        ValueError: a trial needs more GPUs than a machine has, or none may run.
    """
    if at_most < 1:
        raise ValueError(f"at least one trial runs at once, found at_most={at_most}")
    if too_large := [trial for trial in trials if trial.gpus > gpus]:
        raise ValueError(f"a machine has {gpus} GPUs, found a trial that needs {too_large[0].gpus:g} of one")
    cluster = Cluster(machines, gpus)
    waiting: dict[float, deque[tuple[int, Trial]]] = {}
    for place, trial in enumerate(trials):
        waiting.setdefault(trial.gpus, deque()).append((place, trial))
    running: list[tuple[float, int, Run]] = []
    runs: list[Run] = []
    now = 0.0
    while waiting or running:
        while len(running) < at_most and (found := _next(waiting, cluster, overtaking)):
            trial, machine, chosen = found
            runs.append(Run(trial, machine, chosen, now, now + latency + trial.seconds))
            heapq.heappush(running, (runs[-1].ended, len(runs), runs[-1]))
        now = running[0][0]
        while running and running[0][0] == now:  # whoever ends at once makes room at once
            cluster.give(heapq.heappop(running)[2])
    return runs


def _next(
    waiting: dict[float, deque[tuple[int, Trial]]], cluster: Cluster, overtaking: bool
) -> tuple[Trial, int, tuple[int, ...]] | None:
    """The first trial in the order that has room, and its place; it waits no longer."""
    for size in sorted(waiting, key=lambda size: waiting[size][0][0]):
        if place := cluster.take(size):
            _, trial = waiting[size].popleft()
            if not waiting[size]:
                del waiting[size]
            return trial, *place
        if not overtaking:
            return None
    return None


def pool(trials: Sequence[Trial], parts: Callable[[Sequence[Trial]], list[Sequence[Trial]]]) -> list[Run]:
    """Each machine works through its part; its slots are as large as the largest of its trials needs them."""
    runs = []
    for machine, part in enumerate(parts(trials)):
        slot = max([1.0, *(trial.gpus for trial in part)])
        placed = schedule([replace(trial, gpus=slot) for trial in part], machines=1)
        runs += [replace(run, trial=trial, machine=machine) for trial, run in zip(part, placed, strict=True)]
    return runs


def slurm(trials: Sequence[Trial], latency: float = 30.0, at_most: float = math.inf) -> list[Run]:
    """An array for each number of GPUs, the fewest first; what an earlier array leaves free a later one takes."""
    return schedule(sorted(trials, key=lambda trial: trial.gpus), latency=latency, at_most=at_most)


def dealt(trials: Sequence[Trial]) -> list[Sequence[Trial]]:
    """Like cards: the first to the first machine, the second to the second."""
    return [trials[machine::MACHINES] for machine in range(MACHINES)]


def cut(trials: Sequence[Trial]) -> list[Sequence[Trial]]:
    """The first eighth of the list to the first machine, the second to the second."""
    ends = [round(len(trials) * machine / MACHINES) for machine in range(MACHINES + 1)]
    return [trials[begin:end] for begin, end in pairwise(ends)]


def makespan(runs: Sequence[Run]) -> float:
    """Seconds until the last has ended."""
    return max(run.ended for run in runs)


def work(trials: Sequence[Trial]) -> float:
    """GPU seconds of training."""
    return sum(trial.seconds * trial.gpus for trial in trials)


def idle(runs: Sequence[Run], gpus: int = MACHINES * GPUS) -> float:
    """The share of GPU time without training, 0 to 1."""
    return 1 - work([run.trial for run in runs]) / (gpus * makespan(runs))


def bound(trials: Sequence[Trial], gpus: int = MACHINES * GPUS) -> float:
    """Seconds that no schedule can do without.

    The work in equal shares; the longest trial; and, of trials on a GPU each, the least that two of the `gpus` + 1
    longest take one after the other, three of the 2 × `gpus` + 1 longest, and so on, since some GPU gets so many.
    """
    seconds = sorted((trial.seconds for trial in trials), reverse=True)
    least = max(work(trials) / gpus, seconds[0])
    if all(trial.gpus == 1 for trial in trials):
        for rounds in range(1, (len(seconds) - 1) // gpus + 1):
            longest = seconds[: rounds * gpus + 1]
            least = max(least, sum(longest[-rounds - 1 :]))
    return least


def graham_any(trials: Sequence[Trial], gpus: int = MACHINES * GPUS) -> float:
    """Seconds that no order on one queue exceeds, for trials of a GPU each (Graham, 1966).

    Until the last one to end begins, all GPUs are busy with the others. At most 2 − 1/gpus times the best schedule.
    """
    return work(trials) / gpus + (1 - 1 / gpus) * max(trial.seconds for trial in trials)


def graham_longest(gpus: int = MACHINES * GPUS) -> float:
    """By how much longest first can exceed the best schedule at the most (Graham, 1969, theorem 2)."""
    return 4 / 3 - 1 / (3 * gpus)
