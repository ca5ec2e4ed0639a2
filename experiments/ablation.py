"""What the settings of a study are worth: a table and a picture of its rows.

    python experiments/ablation.py runs/STUDY --plot FILE.png

A row is a method with its settings: mean AP over seeds ± standard deviation, the 95 % interval over seeds and photos,
and letters (rows that share one can't be told apart). The picture shows the interval, the mean and each seed. The table
is markdown, AP × 100; after it stand the differences of all pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from maskbench.study.board import Board
from maskbench.study.leaderboard import Group, bounds, letters

NUMBERS = {"AP50": ("AP50", 100, 1), "AP75": ("AP75", 100, 1), "FPS": ("FPS", 1, 1), "train_minutes": ("minutes", 1, 1)}


def table(found: Group) -> list[str]:
    titles = ["row", "n", "AP", "95 %", "letters", *(title for title, _, _ in NUMBERS.values())]
    lines = [titles, [":--", *["--:"] * (len(titles) - 1)]]
    for _, row in found.methods.iterrows():
        numbers = [f"{scale * row[name]:.{digits}f}" for name, (_, scale, digits) in NUMBERS.items()]
        ap = f"{100 * row['AP']:.1f} ± {100 * row['AP_std']:.1f}"
        lines.append([row["label"], str(row["n"]), ap, bounds(found, row), letters(found, row), *numbers])
    return [f"| {' | '.join(line)} |" for line in lines]


def differences(found: Group) -> list[str]:
    return [
        f"{pair.first} − {pair.second}: {100 * pair.difference:.1f} "
        f"({100 * pair.low:.1f} to {100 * pair.high:.1f}), p = {pair.chance:.3f}"
        for pair in (found.uncertainty.pairs if found.uncertainty else ())
    ]


def draw(found: Group, path: Path) -> None:
    rows = list(found.methods["label"])
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.5 * len(rows)), layout="constrained")
    for height, label in enumerate(reversed(rows)):
        seeds = 100 * found.trials.loc[found.trials["label"] == label, "AP"]
        if found.uncertainty and label in found.uncertainty.intervals:
            low, high = found.uncertainty.intervals[label]
            axes.plot([100 * low, 100 * high], [height, height], color="0.6", linewidth=2)
        axes.plot(seeds, [height] * len(seeds), "o", color="C0", alpha=0.5, label="a seed" if height == 0 else None)
        axes.plot(seeds.mean(), height, "D", color="C1", label="their mean" if height == 0 else None)
    axes.set_yticks(range(len(rows)), list(reversed(rows)))
    axes.set_xlabel("mask AP on test, and the 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    chosen = parser.parse_args()
    for found in Board.read(chosen.study).groups:
        print("\n".join([*table(found), "", *differences(found)]))
        draw(found, chosen.plot)


if __name__ == "__main__":
    main()
