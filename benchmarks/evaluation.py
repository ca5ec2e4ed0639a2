"""How long an evaluation takes beside pycocotools', whether its numbers are the same, and what memory it needs.

    python benchmarks/evaluation.py [--images 5000] [--repeats 3]

Drawn: photos of 640 × 480 with seven truths and a hundred detections each, of 80 classes; one detection in ten lies
about a truth. Both evaluators read the same records and take turns; seconds are medians, memory is the peak of a
process of its own that reads both files and evaluates (Linux). A thousand bootstrap draws are timed as well. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskbench.evaluation.bootstrap import draw as draw_photos
from maskbench.evaluation.bootstrap import drawn_ap
from maskbench.evaluation.results import read_predictions
from maskbench.evaluation.scoring import score

HEIGHT, WIDTH, CLASSES, TRUTHS, DETECTIONS = 480, 640, 80, 7, 100
CORNERS = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def outlines(rng: np.random.Generator, centres: np.ndarray, radii: np.ndarray) -> list[dict[str, Any]]:
    """Wavy discs, run-length encoded as large as the photo."""
    waves = radii[:, None] * (1 + 0.15 * rng.standard_normal((len(radii), len(CORNERS))))
    x = (centres[:, :1] + waves * np.cos(CORNERS)).clip(0, WIDTH)
    y = (centres[:, 1:] + waves * np.sin(CORNERS)).clip(0, HEIGHT)
    rles = rle_codec.frPyObjects(np.stack([x, y], axis=2).reshape(len(radii), -1).tolist(), HEIGHT, WIDTH)
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in rles]


def draw(images: int, folder: Path) -> tuple[Path, Path]:
    """The annotation json and the results of so many photos."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        centres, radii = rng.uniform((0, 0), (WIDTH, HEIGHT), (TRUTHS, 2)), rng.lognormal(3.5, 0.7, TRUTHS)
        classes = rng.integers(1, CLASSES + 1, TRUTHS)
        for category, mask in zip(classes.tolist(), outlines(rng, centres, radii), strict=True):
            area = float(rle_codec.area(mask))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, "segmentation": mask}
                | {"area": area, "bbox": rle_codec.toBbox(mask).tolist(), "iscrowd": 0}
            )
        about = rng.integers(0, TRUTHS, DETECTIONS // 10)
        rest = DETECTIONS - len(about)
        near = centres[about] + rng.normal(0, 0.1, (len(about), 2)) * radii[about, None]
        far = rng.uniform((0, 0), (WIDTH, HEIGHT), (rest, 2))
        found = outlines(rng, np.vstack([near, far]), np.append(radii[about], rng.lognormal(3.5, 0.7, rest)))
        guesses = np.append(classes[about], rng.integers(1, CLASSES + 1, rest))
        scores = np.append(rng.uniform(0.2, 1, len(about)), rng.uniform(0, 0.6, rest))
        results += [
            {"image_id": image, "category_id": category, "segmentation": mask, "score": value}
            for category, mask, value in zip(guesses.tolist(), found, scores.tolist(), strict=True)
        ]
    content = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(1, images + 1)],
        "categories": [{"id": category, "name": str(category)} for category in range(1, CLASSES + 1)],
        "annotations": annotations,
    }
    paths = folder / "annotations.json", folder / "results.json"
    paths[0].write_text(json.dumps(content))
    paths[1].write_text(json.dumps(results))
    return paths


def pycocotools(annotations: Path, results: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(annotations)
        judge = COCOeval(truth, truth.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats.tolist()


def ours(annotations: Path, results: list[dict[str, Any]], iou_type: Any = "segm") -> list[float]:
    return list(score(annotations, results, iou_type=iou_type).summary.values())


def boundary(annotations: Path, results: list[dict[str, Any]]) -> list[float]:
    return ours(annotations, results, "boundary")


JUDGES = {"pycocotools": pycocotools, "ours": ours, "boundary": boundary}


def timed(name: str, annotations: Path, results: list[dict[str, Any]]) -> tuple[float, list[float]]:
    given = [dict(result) for result in results]  # pycocotools writes into its records
    began = perf_counter()
    numbers = JUDGES[name](annotations, given)
    return perf_counter() - began, numbers


def bootstrapped(annotations: Path, results: list[dict[str, Any]], images: int) -> float:
    """Seconds of a thousand draws, once detections are matched."""
    matches = score(annotations, results, iou_type="segm").matches
    began = perf_counter()
    drawn_ap(matches, draw_photos(images))
    return perf_counter() - began


def peak(name: str, annotations: Path, results: Path) -> float:
    """Megabytes of a process that does this and nothing else."""
    command = [sys.executable, __file__, "--only", name, str(annotations), str(results)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs=3, metavar=("NAME", "ANNOTATIONS", "RESULTS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.only:
        name, annotations, results = chosen.only
        JUDGES[name](Path(annotations), read_predictions(results))
        # of this program alone: getrusage would have the peak of the process that forked it
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(line.split()[1]) / 1e3)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(chosen.images, Path(folder))
        results = read_predictions(paths[1])
        turns = [{name: timed(name, paths[0], results) for name in JUDGES} for _ in range(chosen.repeats)]
        draws = bootstrapped(paths[0], results, chosen.images)
        memory = {name: peak(name, *paths) for name in JUDGES}
    seconds = {name: statistics.median(turn[name][0] for turn in turns) for name in JUDGES}
    apart = max(abs(a - b) for a, b in zip(turns[0]["pycocotools"][1], turns[0]["ours"][1], strict=True))
    print(f"{'':12} {'s':>7} {'of pycocotools':>15} {'MB':>7}   AP {100 * turns[0]['ours'][1][0]:.2f}")
    for name, taken in seconds.items():
        print(f"{name:12} {taken:7.2f} {taken / seconds['pycocotools']:15.2f} {memory[name]:7.0f}")
    print(f"1,000 bootstrap draws of its matches: {draws:.1f} s")
    print(
        json.dumps(
            {"images": chosen.images, "seconds": seconds, "bootstrap": draws, "memory_mb": memory, "apart": apart}
        )
    )


if __name__ == "__main__":
    main()
