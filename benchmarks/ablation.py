"""What the settings of a study are worth: a table and a picture of its rows.

    python benchmarks/ablation.py runs/STUDY --plot FILE.png

A row is a method with its settings: mean AP over seeds ± standard deviation, the 95 % interval over seeds and photos,
and letters (rows that share one can't be told apart). The picture shows the interval, the mean and each seed. The table
is markdown, AP × 100; after it stand the differences of all pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from maskbench.study.board import Board
from maskbench.study.leaderboard import COLUMNS, Group, bounds, letters, spread

NUMBERS = ("AP", "AP50", "AP75", "FPS", "train_minutes")


def table(found: Group) -> list[str]:
    columns = [column for column in COLUMNS if column.name in NUMBERS]
    lines = [["row", "n", "95 %", "letters", *(column.title for column in columns)]]
    lines.append([":--", *["--:"] * (len(lines[0]) - 1)])
    for _, row in found.methods.iterrows():
        numbers = [f"{column.text(row[column.name])} {spread(column, row)}".strip() for column in columns]
        lines.append([row["label"], str(row["n"]), bounds(found, row), letters(found, row), *numbers])
    return [f"| {' | '.join(line)} |" for line in lines]


def differences(found: Group) -> list[str]:
    return [
        f"{pair.first} − {pair.second}: {100 * pair.difference:.1f} "
        f"({100 * pair.low:.1f} to {100 * pair.high:.1f}), p = {pair.chance:.3f}"
        for pair in (found.uncertainty.pairs if found.uncertainty else ())
    ]


def draw(found: Group, path: Path) -> None:
    rows = list(found.methods["label"])[::-1]
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.5 * len(rows)), layout="constrained")
    for height, label in enumerate(rows):
        seeds = 100 * found.trials.loc[found.trials["label"] == label, "AP"]
        if found.uncertainty and label in found.uncertainty.intervals:
            axes.plot([100 * end for end in found.uncertainty.intervals[label]], [height] * 2, color="0.6", linewidth=2)
        axes.plot(seeds, [height] * len(seeds), "o", color="C0", alpha=0.5, label="a seed" if height == 0 else None)
        axes.plot(seeds.mean(), height, "D", color="C1", label="their mean" if height == 0 else None)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("mask AP on test, and the 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--plot", type=Path, required=True)
    chosen = parser.parse_args()
    groups = Board.read(chosen.study).groups
    if len(groups) != 1:
        parser.error(f"{chosen.study} has trials of {len(groups)} footings, and only those of one can be compared")
    print("\n".join([*table(groups[0]), "", *differences(groups[0])]))
    draw(groups[0], chosen.plot)


if __name__ == "__main__":
    main()
