"""How often the 95 % interval of an AP holds the true AP: python experiments/intervals/coverage.py

Evaluations of 200 photos are simulated without photos: a photo is easy or hard for the finder, so that its objects
share their luck; an object is found or not, with an overlap that the photo's ease moves; scores follow overlaps
loosely, and hard photos have more false alarms. The true AP is that of 200,000 photos. Plain percentiles of the same
draws stand beside the interval that reports print. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from maskbench.evaluation.bootstrap import draw, drawn_ap, interval, whole_ap
from maskbench.evaluation.matches import Matches
from maskbench.evaluation.matching import THRESHOLDS

SETTINGS = ((1, 5.0), (5, 5.0), (20, 5.0))
"""Classes (the k-th is 1 / k times as frequent as the first), and mean objects a photo."""


def simulate(photos: int, classes: int, objects: float, rng: np.random.Generator) -> Matches:
    """What became of the detections in so many photos."""
    ease = rng.standard_normal(photos)
    shares = 1 / np.arange(1, classes + 1)
    truth_image = np.repeat(np.arange(photos), rng.poisson(objects, photos))
    truth_label = rng.choice(classes, len(truth_image), p=shares / shares.sum())
    overlap = _share(1.2 + 0.8 * ease[truth_image] + rng.standard_normal(len(truth_image)))
    found = np.flatnonzero(rng.random(len(truth_image)) < 0.85)
    alarm_image = np.repeat(np.arange(photos), rng.poisson(0.8 * objects * np.exp(-0.4 * ease)))
    alarm_label = rng.choice(classes, len(alarm_image), p=shares / shares.sum())
    image, label = np.append(truth_image[found], alarm_image), np.append(truth_label[found], alarm_label)
    belief = np.append(4 * overlap[found] - 2, np.full(len(alarm_image), -1.0))
    score = _share(belief + rng.standard_normal(len(image)))
    overlap = np.append(overlap[found], np.zeros(len(alarm_image)))
    order = np.lexsort((-score, label))
    right = (overlap[order, None] >= THRESHOLDS)[:, None]
    return Matches(
        images=tuple(range(photos)),
        classes=tuple(range(classes)),
        names=tuple(map(str, range(classes))),
        strata=("all",),
        image=image[order],
        label=label[order],
        score=score[order],
        rank=np.zeros(len(order), dtype=np.int64),
        right=right,
        wrong=~right,
        overlap=overlap[order],
        truth_image=truth_image,
        truth_label=truth_label,
        counted=np.ones((len(truth_image), 1), dtype=bool),
    )


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def coverage(classes: int, objects: float, evaluations: int, photos: int) -> dict[str, float]:
    """How often each interval holds the true AP, and how wide it is on average."""
    rng = np.random.default_rng(classes)
    true = whole_ap(simulate(200_000, classes, objects, rng))
    weights = draw(photos)
    estimates, held, widths = [], {"basic": 0, "percentile": 0}, []
    for _ in range(evaluations):
        matches = simulate(photos, classes, objects, rng)
        drawn = drawn_ap(matches, weights).mean(axis=1)
        estimates.append(whole_ap(matches))
        bounds = {"basic": interval(estimates[-1], drawn), "percentile": tuple(np.quantile(drawn, [0.025, 0.975]))}
        for name, (low, high) in bounds.items():
            held[name] += bool(low <= true <= high)
        widths.append(bounds["basic"][1] - bounds["basic"][0])
    shares = {name: count / evaluations for name, count in held.items()}
    return {"classes": classes, "objects": objects, "true": true, "mean": float(np.mean(estimates))} | {
        **shares,
        "width": float(np.mean(widths)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--photos", type=int, default=200)
    chosen = parser.parse_args()
    rows = [coverage(*setting, chosen.evaluations, chosen.photos) for setting in SETTINGS]
    print(
        "| classes | objects a photo | true AP | mean of the estimates | mean width | basic holds | percentiles hold |"
    )
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for row in rows:
        numbers = [f"{100 * row[name]:.1f}" for name in ("true", "mean", "width", "basic", "percentile")]
        print(f"| {row['classes']} | {row['objects']:.0f} | {' | '.join(numbers)} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
