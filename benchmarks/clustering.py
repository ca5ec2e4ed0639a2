"""How fast our mean-shift is beside scikit-learn's, whether its labels are the same, and what time and memory it needs.

    python benchmarks/clustering.py [--threads 2] [--repeats 3] [--points 100000] [--few 20000] [--plot FILE]

Drawn: eighty objects as Gaussian blobs in eight dimensions, their means at least two bandwidths apart, and one point in
twenty on the way from one mean to another, as outlines are. Three comparisons: from the same seeds at `--points`; as
each is seeded by default, scikit-learn from every point, at `--few`; and ours alone from an eighth of `--points` to all
of them. scikit-learn has as many processes as ours has threads, and they have started before it is timed. Seconds are
medians but for scikit-learn's default, which runs once; memory is the peak of a process of its own, less what the
libraries and the points hold (Linux). The last line is JSON. Where other programs share the cores,
OMP_WAIT_POLICY=passive keeps threads from spinning for one that waits for its turn.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import MeanShift as Theirs
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from maskbench.ops.cluster import MeanShift, Pixels, keep_apart, mean_shift

OBJECTS, DIMENSIONS, BANDWIDTH, SPREAD, SEEDS = 80, 8, 1.5, 0.4, 2048
OUTLINE = 0.05
"""Share of the points that lie between two objects."""
SIZES = (8, 4, 2, 1)
"""Parts of the points at which time is measured."""


def draw(count: int) -> Tensor:
    """Embeddings of so many cells, in random order."""
    random = torch.Generator().manual_seed(0)
    means = 12 * torch.rand(100 * OBJECTS, DIMENSIONS, generator=random) - 6
    means = means[keep_apart(means, 2 * BANDWIDTH)][:OBJECTS]
    one, other = torch.randint(OBJECTS, (2, count), generator=random)
    way = torch.rand(count, 1, generator=random) * (torch.rand(count, 1, generator=random) < OUTLINE)
    return means[one].lerp(means[other], way) + SPREAD * torch.randn(count, DIMENSIONS, generator=random)


def clustered(points: Tensor) -> Tensor:
    """The clusters of one image with these embeddings, as a method asks for them."""
    nothing = torch.zeros(len(points), dtype=torch.long)
    pixels = Pixels(points, nothing[:, None].expand(-1, 2), nothing, torch.ones(len(points)))
    return MeanShift(BANDWIDTH, seeds=SEEDS)([pixels])[0].member


def ours(points: Tensor, seeds: Tensor) -> Tensor:
    return mean_shift(points, BANDWIDTH, seeds=seeds)[0]


def theirs(points: Tensor, seeds: Tensor | None, processes: int) -> np.ndarray:
    start = None if seeds is None else seeds.numpy()
    return Theirs(bandwidth=BANDWIDTH, seeds=start, n_jobs=processes).fit(points.numpy()).labels_


def timed(run: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Median seconds, and what the last run made."""
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        made = run()
        seconds.append(perf_counter() - began)
    return statistics.median(seconds), made


def compared(ours: tuple[float, Tensor], theirs: tuple[float, np.ndarray]) -> dict[str, float]:
    return {
        "ours": ours[0],
        "scikit_learn": theirs[0],
        "times_as_fast": theirs[0] / ours[0],
        "rand_index": adjusted_rand_score(theirs[1], ours[1]),
        "clusters": len(ours[1].unique()),
    }


def peak(count: int) -> float:
    """Megabytes that clustering took at the most, of this process."""
    points = draw(count)
    clustered(points[:SEEDS])  # the libraries' own buffers
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    clustered(points)
    return resident("VmHWM") - before


def peak_apart() -> float:
    """The same, in a process in which nothing was before."""
    own = [sys.executable, __file__, *sys.argv[1:], "--memory"]
    return float(subprocess.run(own, capture_output=True, text=True, check=True).stdout)


def resident(which: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at the most (getrusage's starts with that of the process before)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 2**10


def slope(seconds: dict[int, float]) -> float:
    """The power of the number of points with which time grows."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def plot(seconds: dict[int, float], file: Path) -> None:
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(seconds.keys(), seconds.values(), "o-")
    axes.set(xlabel="points", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--few", type=int, default=20_000)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time against the number of points")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.memory:
        print(peak(chosen.points))
        return
    memory = peak_apart()
    points = draw(chosen.points)
    seeds, few = points[:: math.ceil(len(points) / SEEDS)], points[: chosen.few]
    theirs(few, seeds[:10], chosen.threads), ours(few, seeds[:10])
    same = compared(
        timed(lambda: ours(points, seeds), chosen.repeats),
        timed(lambda: theirs(points, seeds, chosen.threads), chosen.repeats),
    )
    default = compared(
        timed(lambda: clustered(few), chosen.repeats),
        timed(lambda: theirs(few, None, chosen.threads)),
    )
    parts = [points[: chosen.points // size] for size in SIZES]
    seconds = {len(part): timed(lambda part=part: clustered(part), chosen.repeats)[0] for part in parts}
    print(f"{'':24} {'ours':>8} {'scikit-learn':>12} {'times as fast':>13} {'Rand index':>10} {'clusters':>8}")
    for name, row in (
        (f"{len(seeds):,} seeds, {len(points):,} points", same),
        (f"default, {len(few):,} points", default),
    ):
        print(
            f"{name:24} {row['ours']:8.2f} {row['scikit_learn']:12.2f} {row['times_as_fast']:13.1f}"
            f" {row['rand_index']:10.4f} {row['clusters']:8.0f}"
        )
    for count, taken in seconds.items():
        print(f"{count:9,} points {taken:8.2f} s")
    print(f"grows with the power {slope(seconds):.2f} of the points; {memory:.0f} MB at {chosen.points:,}")
    if chosen.plot:
        plot(seconds, chosen.plot)
    found = {"same_seeds": same, "default": default, "seconds": seconds, "slope": slope(seconds), "memory_mb": memory}
    print(json.dumps({"points": chosen.points, "few": chosen.few, "threads": chosen.threads} | found))


if __name__ == "__main__":
    main()
