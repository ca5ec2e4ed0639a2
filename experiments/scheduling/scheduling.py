"""How long a sweep leaves GPUs idle, by the order of its trials and the engine.

    python experiments/scheduling/scheduling.py [--table] [--draws 100]

Eight machines of eight GPUs run trials whose lengths are those of the methods' measured trainings, or log-normal. An
order is what the person says; an engine is who starts what where (`simulation`):

    pool    each machine has a list of its own, and a free slot takes the next: somebody cuts the sweep into eight
    ray     one queue for all machines; a trial that finds no room lets those of other sizes past it
    slurm   job arrays, one for each number of GPUs: at most so many trials at once, and each holds its place for half a
            minute before its first step

Idle is the share of GPU time without training, from the sweep's beginning to its end. Prints markdown tables: means of
the draws, and what 95 of 100 lie between where the order is random. Without --table it draws the picture too, and the
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from simulation import (
    GPUS,
    MACHINES,
    Run,
    Trial,
    bound,
    cut,
    dealt,
    graham_any,
    graham_longest,
    idle,
    makespan,
    pool,
    schedule,
    slurm,
    work,
)

HOUR = 3600.0

SHAPES = {
    "cascade_mask_rcnn": 3.7,
    "centre_offset": 3.0,
    "decoupled_solo": 2.6,
    "discriminative": 2.1,
    "flow_field": 1.8,
    "htc": 5.0,
    "hybrid": 2.3,
    "mask_rcnn": 2.9,
    "point_rend": 2.6,
    "semantic": 1.5,
    "solo": 2.1,
    "solov2": 2.6,
    "spatial_embedding": 2.2,
}
"""Minutes of training of experiments/shapes/README.md, first table (commit 418b35e, centre_offset at 331ce8e)."""

NUCLEI = {
    "cascade_mask_rcnn": 31.6,
    "decoupled_solo": 26.4,
    "discriminative": 11.8,
    "htc": 40.2,
    "mask_rcnn": 14.8,
    "point_rend": 15.5,
    "solo": 25.8,
    "solov2": 38.5,
}
"""The same of experiments/nuclei/README.md (28f4e68, four of them 0ddeea9): beside other work, so upper bounds."""

# fmt: off
BY_COST = (
    "htc", "cascade_mask_rcnn", "point_rend", "mask_rcnn", "decoupled_solo", "solov2", "centre_offset", "hybrid",
    "spatial_embedding", "solo", "discriminative", "flow_field", "semantic",
)
# fmt: on
"""The order of `make sweep METHODS=all`, as its Makefile has it."""
PLACES = {method: place for place, method in enumerate(BY_COST)}

SPREAD = 0.05
"""By how much the trials of one method differ, as the standard deviation of the logarithm: a guess."""
WILD = 1.0
"""The same of trials of which nothing is known: one in forty takes more than seven times the median."""
GUESS = 0.5
"""The same of what somebody thinks a trial takes, around what it does take."""


Engine = Callable[[Sequence[Trial]], list[Run]]
ENGINES: dict[str, Engine] = {
    "ray": schedule,
    "slurm": slurm,
    "slurm, 32 at once": partial(slurm, at_most=32),
    "pool, dealt out": partial(pool, parts=dealt),
    "pool, cut in eight": partial(pool, parts=cut),
}

Order = Callable[[Sequence[Trial], np.random.Generator], list[Trial]]


def shuffled(trials: Sequence[Trial], rng: np.random.Generator) -> list[Trial]:
    return [trials[place] for place in rng.permutation(len(trials))]


def guessed(trials: Sequence[Trial], rng: np.random.Generator) -> list[Trial]:
    """The longest first by what somebody thinks."""
    guesses = np.array([trial.seconds for trial in trials]) * rng.lognormal(0, GUESS, len(trials))
    return [trials[place] for place in np.argsort(-guesses)]


ORDERS: dict[str, Order] = {
    "as listed": lambda trials, rng: list(trials),
    "shortest first": lambda trials, rng: sorted(trials, key=lambda trial: trial.seconds),
    "random": shuffled,
    "guessed longest first": guessed,
    "METHODS=all": lambda trials, rng: sorted(trials, key=lambda trial: PLACES[trial.method]),
    "longest first": lambda trials, rng: sorted(trials, key=lambda trial: -trial.seconds),
}


def sweep(minutes: Mapping[str, float], repeats: int, rng: np.random.Generator, hour: float = HOUR) -> list[Trial]:
    """Every method so many times (seeds and settings that change no length), method by method as Hydra has it.

    Mask R-CNN takes an `hour`, the others as much longer as they were measured to.
    """
    unit = hour / minutes["mask_rcnn"]
    return [
        Trial(method, unit * minutes[method] * rng.lognormal(0, SPREAD))
        for method in sorted(minutes)
        for _ in range(repeats)
    ]


def wild(count: int, rng: np.random.Generator) -> list[Trial]:
    """Log-normal lengths around an hour: a median of one, and a long tail."""
    return [Trial("any", HOUR * rng.lognormal(0, WILD)) for _ in range(count)]


SIZES = {"htc": 4.0, "cascade_mask_rcnn": 4.0, "centre_offset": 2.0, "mask_rcnn": 2.0}
"""GPUs of the four longest methods."""


def spread_out(trials: Sequence[Trial]) -> list[Trial]:
    """The longest on several GPUs; twice the GPUs take half the time, which they don't quite."""
    sized = [(trial, SIZES.get(trial.method, 1.0)) for trial in trials]
    return [replace(trial, gpus=gpus, seconds=trial.seconds / gpus) for trial, gpus in sized]


def shared(trials: Sequence[Trial], slower: float) -> list[Trial]:
    """A quarter of a GPU for each, where it takes so many times as long."""
    return [replace(trial, gpus=0.25, seconds=trial.seconds * slower) for trial in trials]


Draw = Callable[[np.random.Generator], list[Trial]]
SWEEPS: dict[str, Draw] = {
    **{f"shapes, 13 × {repeats}": partial(sweep, SHAPES, repeats) for repeats in (1, 3, 5, 10, 40)},
    **{f"nuclei, 8 × {repeats}": partial(sweep, NUCLEI, repeats) for repeats in (10, 40)},
    **{f"log-normal, {count}": partial(wild, count) for count in (130, 520)},
}
"""By methods × seeds; × 40 are ten seeds of four settings."""


@dataclass(frozen=True)
class Found:
    """Of each draw the share of idle time and how many times the bound the sweep took."""

    idle: np.ndarray
    ratio: np.ndarray

    @property
    def text(self) -> str:
        return f"{100 * self.idle.mean():.1f} ({self.ratio.mean():.2f})"

    @property
    def within(self) -> str:
        """With what 95 of 100 draws lie between."""
        low, high = np.quantile(self.idle, [0.025, 0.975])
        return f"{100 * self.idle.mean():.1f}, {100 * low:.1f} to {100 * high:.1f} ({self.ratio.mean():.2f})"

    @property
    def numbers(self) -> dict[str, list[float]]:
        return {name: [float(f(values)) for f in SUMMARY] for name, values in vars(self).items()}


SUMMARY = (np.mean, partial(np.quantile, q=0.025), partial(np.quantile, q=0.975))


def measure(drawn: Draw, order: Order, engine: Engine, draws: int) -> Found:
    """The same draws of trials for every order and engine."""
    idles, ratios = [], []
    for seed in range(draws):
        trials = drawn(np.random.default_rng(seed))
        runs = engine(order(trials, np.random.default_rng([seed, 1])))
        idles.append(idle(runs))
        ratios.append(makespan(runs) / bound(trials))
    return Found(np.array(idles), np.array(ratios))


def least(drawn: Draw, draws: int) -> float:
    """The share of GPU time that would be idle were the bound reached."""
    sweeps = [drawn(np.random.default_rng(seed)) for seed in range(draws)]
    return float(np.mean([1 - work(trials) / (MACHINES * GPUS * bound(trials)) for trials in sweeps]))


def worst_of_theory(draws: int) -> dict[str, float]:
    """The largest share of Graham's bounds that an order came to on one queue, over all sweeps and draws.

    Longest first is held to the best of all orders, which takes no less than the best schedule: a share above one would
    show that the simulation is wrong.
    """
    shares = {"any order": 0.0, "longest first": 0.0}
    for drawn in SWEEPS.values():
        for seed in range(draws):
            trials = drawn(np.random.default_rng(seed))
            random = np.random.default_rng([seed, 1])
            taken = {name: makespan(schedule(ORDERS[name](trials, random))) for name in LOOKS}
            shares["any order"] = max(shares["any order"], max(taken.values()) / graham_any(trials))
            longest = taken["longest first"] / (graham_longest() * min(taken.values()))
            shares["longest first"] = max(shares["longest first"], longest)
    return shares


Table = dict[str, dict[str, Found]]
"""By the rows' and the columns' names."""


def by_order(draws: int) -> Table:
    """One queue: a row a sweep, a column an order; log-normal trials have no methods to order them by."""
    return {
        name: {
            order: measure(drawn, own, schedule, draws)
            for order, own in ORDERS.items()
            if order != "METHODS=all" or not name.startswith("log-normal")
        }
        for name, drawn in SWEEPS.items()
    }


COMPARED: dict[str, Draw] = {
    "shapes": SWEEPS["shapes, 13 × 40"],
    "log-normal": SWEEPS["log-normal, 520"],
    "shapes of minutes": partial(sweep, SHAPES, 40, hour=60 * SHAPES["mask_rcnn"]),
}
"""520 trials each; the last takes the minutes that were measured."""
BOTH = ("as listed", "longest first")


def by_engine(draws: int) -> Table:
    """A row an engine, a column an order of a sweep."""
    return {
        engine: {
            f"{name}, {order}": measure(drawn, ORDERS[order], run, draws)
            for name, drawn in COMPARED.items()
            for order in BOTH
        }
        for engine, run in ENGINES.items()
    }


MIXED: dict[str, Engine] = {
    "ray": schedule,
    "ray, if nobody passed": partial(schedule, overtaking=False),
    "slurm": slurm,
    "pool, dealt out": partial(pool, parts=dealt),
    "pool, cut in eight": partial(pool, parts=cut),
}
MIXED_ORDERS: dict[str, Order] = {
    **{name: ORDERS[name] for name in ("as listed", "random", "longest first")},
    "most GPUs first": lambda trials, rng: sorted(trials, key=lambda trial: (-trial.gpus, -trial.seconds)),
}


def of_sizes(draws: int) -> Table:
    """130 trials of one, two and four GPUs: a row an engine, a column an order."""

    def drawn(rng: np.random.Generator) -> list[Trial]:
        return spread_out(sweep(SHAPES, 10, rng))

    return {
        engine: {name: measure(drawn, order, run, draws) for name, order in MIXED_ORDERS.items()}
        for engine, run in MIXED.items()
    }


SLOWER = (1, 2, 3)


def in_quarters(draws: int) -> dict[str, list[float]]:
    """Hours until the last ends, longest first: a GPU each, and four on one, where each takes so many times as long."""
    found: dict[str, list[float]] = {}
    for repeats in (1, 5, 10, 40):
        hours = []
        for seed in range(draws):
            trials = sweep(SHAPES, repeats, np.random.default_rng(seed))
            trials.sort(key=lambda trial: -trial.seconds)
            ways = [trials, *(shared(trials, slower) for slower in SLOWER)]
            hours.append([makespan(schedule(way)) / HOUR for way in ways])
        found[f"shapes, 13 × {repeats}"] = np.mean(hours, axis=0).tolist()
    return found


def show(title: str, lines: Sequence[Sequence[str]]) -> None:
    head, *rows = [f"| {' | '.join(line)} |" for line in lines]
    print("\n".join([f"{title}\n", head, "| :-- |" + " --: |" * (len(lines[0]) - 1), *rows, ""]))


def lines(table: Table, first: str) -> list[list[str]]:
    """With a dash for what is not there."""
    names = list(next(iter(table.values())))
    rows = [[row, *(_cell(name, own.get(name)) for name in names)] for row, own in table.items()]
    return [[first, *names], *rows]


def _cell(column: str, found: Found | None) -> str:
    if found is None:
        return "–"
    return found.within if column == "random" else found.text


LOOKS = {
    "shortest first": ("#CC79A7", "v"),
    "random": ("#E69F00", "o"),
    "as listed": ("#0072B2", "s"),
    "longest first": ("#009E73", "D"),
}
"""Colours of Okabe and Ito's, and a marker each, for whoever sees no colours."""
LABELS = {"as listed": "as listed: by the alphabet"}
REPEATS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 60, 80)


def draw(engines: Table, draws: int, path: Path) -> None:
    """Idle time against the number of trials by order, and by engine."""
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(1.25, 1), layout="constrained")
    _draw_orders(left, draws)
    _draw_engines(right, engines)
    figure.savefig(path, dpi=100)


def _draw_orders(axes: Axes, draws: int) -> None:
    counts = [len(SHAPES) * repeats for repeats in REPEATS]
    drawn = [partial(sweep, SHAPES, repeats) for repeats in REPEATS]
    for name, (colour, marker) in LOOKS.items():
        idles = np.array([100 * measure(own, ORDERS[name], schedule, draws).idle for own in drawn])
        axes.plot(counts, idles.mean(axis=1), color=colour, marker=marker, markersize=5, label=LABELS.get(name, name))
        if name == "random":
            axes.fill_between(counts, *np.quantile(idles, [0.025, 0.975], axis=1), color=colour, alpha=0.2, linewidth=0)
    floor = [100 * least(own, draws) for own in drawn]
    axes.plot(counts, floor, color="0.25", linestyle="--", linewidth=1.2, label="no order leaves less")
    axes.axvline(MACHINES * GPUS, color="0.8", linewidth=1, zorder=0)
    axes.annotate("64 GPUs", (MACHINES * GPUS, 3), (-4, 0), textcoords="offset points", ha="right", color="0.4")
    axes.set(xscale="log", ylim=(0, 100), xlabel="trials (13 methods × repeats)", ylabel="idle GPU time, %")
    axes.set_xticks([13, 26, 52, 130, 260, 520, 1040], ["13", "26", "52", "130", "260", "520", "1040"])
    axes.minorticks_off()
    axes.set_title("One queue: the order", loc="left", fontsize=12)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=10)


def _draw_engines(axes: Axes, engines: Table) -> None:
    heights = np.arange(len(engines))[::-1]
    for place, sweeps in enumerate(("shapes", "log-normal")):
        for order in BOTH:
            colour, marker = LOOKS[order]
            idles = [100 * row[f"{sweeps}, {order}"].idle.mean() for row in engines.values()]
            look = {"color": colour, "markerfacecolor": "white" if place else colour, "markersize": 8}
            axes.plot(idles, heights + 0.12 - 0.24 * place, marker, label=f"{sweeps}, {order}", **look)
    axes.set_yticks(heights, [name.replace(", ", ",\n") for name in engines])
    axes.set(xlim=(0, 100), ylim=(-0.5, len(engines) + 0.9), xlabel="idle GPU time, %")
    axes.set_title("520 trials: the engine", loc="left", fontsize=12)
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize=9.5, loc="upper left", ncols=2, columnspacing=0.8, handletextpad=0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100, help="of lengths and random orders")
    parser.add_argument("--table", action="store_true", help="print the tables alone")
    chosen = parser.parse_args()
    orders, engines, sizes = (table(chosen.draws) for table in (by_order, by_engine, of_sizes))
    quarters, theory = in_quarters(chosen.draws), worst_of_theory(chosen.draws)
    floors = {name: least(drawn, chosen.draws) for name, drawn in SWEEPS.items()}
    by_order_lines = lines(orders, "sweep")
    for line, floor in zip(
        by_order_lines, ["at least", *(f"{100 * floor:.1f}" for floor in floors.values())], strict=True
    ):
        line.insert(1, floor)
    show("Idle GPU time, % (and the sweep's time over the bound), by order on one queue:", by_order_lines)
    show("The same by engine, 520 trials of one GPU each:", lines(engines, "engine"))
    show("The same, 130 trials of one, two and four GPUs:", lines(sizes, "engine"))
    heads = ["sweep", "a GPU each", *(f"a quarter, {slower} × as long" for slower in SLOWER)]
    rows = [[name, *(f"{value:.1f}" for value in hours)] for name, hours in quarters.items()]
    show("Hours, longest first:", [heads, *rows])
    print(" ".join(f"{name}: at most {100 * share:.0f} % of Graham's bound." for name, share in theory.items()))
    if chosen.table:
        return
    draw(engines, chosen.draws, Path(__file__).with_suffix(".png"))
    numbers = {
        name: {row: {column: found.numbers for column, found in own.items()} for row, own in table.items()}
        for name, table in (("orders", orders), ("engines", engines), ("sizes", sizes))
    }
    print(json.dumps({"draws": chosen.draws, "at_least": floors, **numbers, "quarters": quarters, "theory": theory}))


if __name__ == "__main__":
    main()
