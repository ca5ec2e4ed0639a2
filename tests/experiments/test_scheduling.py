"""The simulation of experiments/scheduling against schedules made by hand, and against what Graham proved."""

from __future__ import annotations

import importlib.util
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "experiments" / "scheduling" / "simulation.py"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="a source distribution has no experiments")


@pytest.fixture(scope="module")
def sim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulation", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(
        spec
    )  # where its dataclasses look for their names
    spec.loader.exec_module(module)
    return module


def trials(sim: ModuleType, *lengths: float, gpus: float = 1.0) -> list:
    return [sim.Trial(f"t{place}", seconds, gpus) for place, seconds in enumerate(lengths)]


def times(runs: list) -> list[tuple[str, float, float]]:
    return [(run.trial.method, run.began, run.ended) for run in runs]


def best(lengths: list[float], gpus: int) -> float:
    """The shortest schedule of all."""
    return min(
        max(np.bincount(places, weights=lengths, minlength=gpus))
        for places in product(range(gpus), repeat=len(lengths))
    )


def test_two_gpus_take_the_next_as_they_fall_free(sim: ModuleType) -> None:
    runs = sim.schedule(trials(sim, 3, 1, 1, 2), machines=1, gpus=2)
    assert times(runs) == [("t0", 0, 3), ("t1", 0, 1), ("t2", 1, 2), ("t3", 2, 4)]
    assert sim.makespan(runs) == 4
    assert sim.idle(runs, gpus=2) == 1 - 7 / 8


def test_who_ends_at_once_makes_room_at_once(sim: ModuleType) -> None:
    four = sim.Trial("four", 1, 4)
    runs = sim.schedule([*trials(sim, 2, 2, 2, 2), four], machines=1, gpus=4)
    assert times(runs)[-1] == ("four", 2, 3)


def test_a_trial_needs_its_gpus_on_one_machine(sim: ModuleType) -> None:
    """Each machine has one GPU left, which is no room for two; the first machine has it again after three seconds."""
    first = [sim.Trial("a", 3, 2), sim.Trial("b", 5, 2)]
    runs = sim.schedule([*first, sim.Trial("c", 1, 2)], machines=2, gpus=3)
    assert times(runs) == [("a", 0, 3), ("b", 0, 5), ("c", 3, 4)]
    assert [(run.machine, run.gpus) for run in runs] == [(0, (0, 1)), (1, (0, 1)), (0, (0, 1))]
    with pytest.raises(ValueError, match="a machine has 3 GPUs"):
        sim.schedule([sim.Trial("d", 1, 4)], machines=2, gpus=3)
    with pytest.raises(ValueError, match="at_most=0"):
        sim.slurm(first, at_most=0)


def test_without_room_one_lets_the_others_pass_or_all_wait(sim: ModuleType) -> None:
    sweep = [sim.Trial("small", 4), sim.Trial("large", 2, 2), sim.Trial("late", 1)]
    passing = sim.schedule(sweep, machines=1, gpus=2)
    assert times(passing) == [("small", 0, 4), ("late", 0, 1), ("large", 4, 6)]
    in_line = sim.schedule(sweep, machines=1, gpus=2, overtaking=False)
    assert times(in_line) == [("small", 0, 4), ("large", 4, 6), ("late", 6, 7)]


def test_the_least_room_that_suffices_is_taken(sim: ModuleType) -> None:
    """Small ones fill the machine that has begun, so that the other has room for a large one."""
    runs = sim.schedule([sim.Trial("a", 5), sim.Trial("b", 5), sim.Trial("large", 1, 4)], machines=2, gpus=4)
    assert [run.machine for run in runs] == [0, 0, 1]
    assert runs[-1].began == 0


def test_four_quarters_share_a_gpu(sim: ModuleType) -> None:
    quarters = trials(sim, 1, 1, 1, 1, 1, gpus=0.25)
    runs = sim.schedule([*quarters, sim.Trial("whole", 1)], machines=1, gpus=2)
    assert [run.gpus for run in runs] == [(0,)] * 4 + [(1,), (0,)]
    assert [run.began for run in runs] == [0] * 5 + [1]
    assert sim.idle(runs, gpus=2) == 1 - (5 / 4 + 1) / 4


def test_an_array_starts_late_and_runs_so_many_at_once(sim: ModuleType) -> None:
    runs = sim.slurm(trials(sim, 10, 10, 10), latency=2, at_most=2)
    assert times(runs) == [("t0", 0, 12), ("t1", 0, 12), ("t2", 12, 24)]
    assert sim.idle(runs) == 1 - 30 / (64 * 24)


def test_the_array_of_the_fewest_gpus_comes_first(sim: ModuleType) -> None:
    runs = sim.slurm([sim.Trial("eight", 1, 8), *trials(sim, *[1] * 57)], latency=0)
    assert times(runs)[-1] == ("eight", 1, 2)


def test_a_pool_is_as_many_lists_as_machines(sim: ModuleType) -> None:
    """Nine trials dealt to eight machines of eight slots all begin at once; sixteen of four GPUs go two by two."""
    assert all(run.began == 0 for run in sim.pool(trials(sim, *[1] * 9), sim.dealt))
    runs = sim.pool(trials(sim, *[1] * 32, gpus=4), sim.dealt)
    assert sorted({run.began for run in runs}) == [0, 1]
    assert [len(part) for part in sim.cut(trials(sim, *[1] * 20))] == [2, 3, 3, 2, 2, 3, 3, 2]


def test_slots_of_a_pool_are_as_large_as_its_largest_trial(sim: ModuleType) -> None:
    """One of four GPUs among 23 of one: two slots a machine, in which a small one leaves three GPUs idle."""
    sweep = [sim.Trial("large", 1, 4), *trials(sim, *[1] * 23)]
    runs = sim.pool(sweep, sim.cut)
    assert sim.makespan(runs) == 2
    assert sim.makespan(sim.schedule(sweep)) == 1
    assert sim.idle(runs) == 1 - 27 / (64 * 2)


@pytest.mark.parametrize("gpus", [2, 3, 7])
def test_graham_s_worst_orders_are_reached(sim: ModuleType, gpus: int) -> None:
    """The long one last: 2 − 1/m times the best. Longest first of 2m−1, 2m−1, …, m+1, m+1, m, m, m: 4/3 − 1/(3m)."""
    last = trials(sim, *[1] * gpus * (gpus - 1), gpus)
    assert sim.makespan(sim.schedule(last, 1, gpus)) == 2 * gpus - 1 == sim.graham_any(last, gpus)
    assert sim.bound(last, gpus) == gpus
    pairs = [length for length in range(2 * gpus - 1, gpus, -1) for _ in range(2)]
    found = sim.makespan(sim.schedule(trials(sim, *pairs, gpus, gpus, gpus), 1, gpus))
    assert found == 4 * gpus - 1
    assert found / (3 * gpus) == pytest.approx(sim.graham_longest(gpus))


def test_no_order_is_worse_than_graham_says_and_none_better_than_the_bound(sim: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for gpus in (2, 3):
        for _ in range(20):
            lengths = rng.lognormal(size=7).tolist()
            optimum = best(lengths, gpus)
            assert sim.bound(trials(sim, *lengths), gpus) <= optimum + 1e-9
            given = sim.makespan(sim.schedule(trials(sim, *lengths), 1, gpus))
            assert given <= sim.graham_any(trials(sim, *lengths), gpus) + 1e-9
            assert optimum - 1e-9 <= given <= (2 - 1 / gpus) * optimum + 1e-9
            longest = sim.makespan(sim.schedule(trials(sim, *sorted(lengths, reverse=True)), 1, gpus))
            assert longest <= sim.graham_longest(gpus) * optimum + 1e-9


def test_one_more_than_there_are_gpus_takes_two_rounds(sim: ModuleType) -> None:
    equal = trials(sim, *[1] * 65)
    assert sim.bound(equal) == 2 == sim.makespan(sim.schedule(equal))
    assert sim.bound(trials(sim, *[1] * 129)) == 3


@pytest.mark.parametrize("engine", ["queue", "line", "array", "dealt", "cut"])
def test_no_gpu_has_more_than_one_trial_and_every_trial_runs_once(sim: ModuleType, engine: str) -> None:
    rng = np.random.default_rng(1)
    sizes = rng.choice([0.25, 0.5, 1, 2, 4], 150)
    sweep = [sim.Trial(f"t{place}", *one) for place, one in enumerate(zip(rng.lognormal(size=150), sizes, strict=True))]
    runs = {
        "queue": lambda: sim.schedule(sweep),
        "line": lambda: sim.schedule(sweep, overtaking=False),
        "array": lambda: sim.slurm(sweep, latency=0.1, at_most=20),
        "dealt": lambda: sim.pool(sweep, sim.dealt),
        "cut": lambda: sim.pool(sweep, sim.cut),
    }[engine]()
    assert sorted(run.trial.method for run in runs) == sorted(trial.method for trial in sweep)
    for run in runs:
        for gpu in run.gpus:
            beside = [other for other in runs if other.machine == run.machine and gpu in other.gpus]
            held = [other.trial.gpus for other in beside if other.began <= run.began < other.ended]
            assert sum(min(1, share) for share in held) <= 1
    assert sim.makespan(runs) >= sim.bound(sweep)


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0), (1, 1.5), (1, 0.3)])
def test_what_is_no_trial_is_refused(sim: ModuleType, wrong: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a trial takes time"):
        sim.Trial("a", *wrong)
