"""AP of bottom-up methods against the mIoU of their decoders.

    python experiments/semantic_quality/semantic_quality.py runs/semantic_quality

Reads the finished runs of a study that differ in the decoder. Prints a markdown table of means
over seeds, × 100, and for each method by how many points of AP a point of mIoU goes along; draws a picture. The last
line is JSON, 0 to 1.
"""

from __future__ import annotations

import argparse
import json
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from maskbench.study.runs import Run, read_runs

MARKERS = "osD^v<>P"


def decoder(run: Run) -> str:
    """As `method/decoder` names it."""
    chosen = run.config.method.decoder
    name = str(chosen._target_).rsplit(".", 1)[1]
    return f"{name}{chosen.finest}s" if "finest" in chosen else name


def oracle(run: Run) -> float | None:
    """AP where the true semantic map is in the place of the decoder's."""
    return run.metrics.get("oracles", {}).get("semantic map", {}).get("AP")


def read(study: Path) -> pd.DataFrame:
    """A row a run."""
    return pd.DataFrame(
        {
            "method": run.method,
            "decoder": decoder(run),
            "seed": run.seed,
            "mIoU": run.metrics["semantic"]["mIoU"],
            "AP": run.metrics["segm"]["AP"],
            "true map": oracle(run),
        }
        for run in read_runs(study)
        if run.state == "done"
    )


def draw(runs: pd.DataFrame, path: Path) -> None:
    """A panel a method, a point a run, a shape a decoder."""
    methods, decoders = sorted(runs["method"].unique()), sorted(runs["decoder"].unique())
    figure, axes = plt.subplots(1, len(methods), figsize=(5.2 * len(methods), 4.4), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods, strict=True):
        for marker, name in zip(cycle(MARKERS), decoders, strict=False):
            some = runs[(runs["method"] == method) & (runs["decoder"] == name)]
            axis.scatter(100 * some["mIoU"], 100 * some["AP"], marker=marker, s=42, label=name)
        axis.set_title(method)
        axis.set_xlabel("mIoU of the semantic map on test")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mask AP on test")
    axes[0, -1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("semantic_quality.png"))
    chosen = parser.parse_args()
    runs = read(chosen.study)
    draw(runs, chosen.plot)
    means = runs.groupby(["method", "decoder"])[["mIoU", "AP", "true map"]].mean().reset_index()
    print("| method | decoder | mIoU | AP | AP with the true map |\n| :-- | :-- | --: | --: | --: |")
    for row in means.sort_values(["method", "mIoU"]).to_dict("records"):
        cells = " | ".join(f"{100 * row[name]:.1f}" for name in ("mIoU", "AP", "true map"))
        print(f"| {row['method']} | {row['decoder']} | {cells} |")
    found = {}
    for method, some in means.groupby("method"):
        slope = some["mIoU"].cov(some["AP"]) / some["mIoU"].var()
        found[str(method)] = {"slope": slope, "correlation": some["mIoU"].corr(some["AP"])}
        print(
            f"{method}: {slope:.2f} points of AP a point of mIoU, correlation {found[str(method)]['correlation']:.2f}"
        )
    print(json.dumps({"runs": runs.to_dict("records"), "fits": found}))


if __name__ == "__main__":
    main()
