"""What a person reads while a verb works: on the error stream, so that the output's last line stays JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maskbench.runtime.ranks import leads

console = Console(stderr=True, highlight=False)
WIDE = 400
"""Characters that a line of a table may have in a file or a pipe: nothing says how wide the reader's window is."""


def say(message: str) -> None:
    """One line for the person who started the verb; of several processes at one training, the first one speaks."""
    if leads():
        console.print(escape(message), soft_wrap=True)


COMPARED = ("segm", "bbox", "boundary")
"""What scores are of, in the order in which they are shown."""


def complain(message: str) -> None:
    """What went wrong, in red."""
    console.print(escape(message), style="bold red", soft_wrap=True)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title and a table, whose first column is text and whose others are numbers."""
    table = Table()
    for place, column in enumerate(columns):
        table.add_column(escape(column), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    reader = console if console.is_terminal else Console(stderr=True, highlight=False, width=WIDE)
    reader.print(escape(title), style="italic", soft_wrap=True)
    reader.print(table)


def show_scores(title: str, metrics: Mapping[str, Any]) -> None:
    """COCO's numbers × 100, a column an IoU type; and what AP50 lacks, where that was found out."""
    scores: dict[str, dict[str, float]] = {kind: metrics[kind] for kind in COMPARED if kind in metrics}
    names = list(dict.fromkeys(name for numbers in scores.values() for name in numbers))
    rows = [[name, *(percent(numbers.get(name)) for numbers in scores.values())] for name in names]
    show(title, ["× 100", *scores], rows)
    if point := metrics.get("deployment"):
        kept = {split: point[split] for split in ("tune", "test")}
        here = f"{title}: scores from {point['threshold']:.2f}, the best F1 on tune"
        show_kept(here, kept)
        show_counts(here, kept["test"]["counting"])
    for kind, why in metrics.get("errors", {}).items():
        rows = [[name, f"{100 * gain:.1f}", str(why["counts"][name])] for name, gain in why["gains"].items()]
        show(f"{title}: why AP50 is lost ({kind})", ["error", "gain if cured", "how many"], rows)
    for kind, parts in metrics.get("strata", {}).items():
        rows = [
            [f"{by}: {name}", percent(row["AP"]), str(row["truths"])]
            for by, strata in parts.items()
            for name, row in strata.items()
        ]
        show(f"{title}: where ({kind})", ["objects", "AP", "how many"], rows)


def show_kept(title: str, tallies: Mapping[str, Mapping[str, Any]]) -> None:
    """What is kept at one threshold is worth, × 100: a column a tally."""
    names = {
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "mean_accuracy": "TP/(TP+FP+FN) at 0.5–0.95",
        "pq": "PQ",
    }
    rows = [[shown, *(percent(tally[name]) for tally in tallies.values())] for name, shown in names.items()]
    show(title, ["× 100", *tallies], rows)


def show_counts(title: str, counting: Mapping[str, Any]) -> None:
    """How well objects of all classes together are counted and drawn."""
    overall = counting["overall"]
    counts = [f"{overall['dic']:+.2f}", f"{overall['abs_dic']:.2f}", percent(overall["exact"]), percent(overall["sbd"])]
    show(f"{title}: counts", ["", "DiC", "|DiC|", "exact, % of images", "SBD × 100"], [["all classes", *counts]])


def percent(value: float | None) -> str:
    """An AP or AR as papers write it, × 100; COCO writes −1 where the data set has no object of a kind."""
    return "–" if value is None or value < 0 else f"{100 * value:.1f}"
