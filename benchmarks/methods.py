"""What a prediction of each method costs at the papers' settings, phase by phase.

    python benchmarks/methods.py [--methods mask_rcnn,solov2_light@448] [--device cuda] [--precision 32-true,bf16-mixed]
        [--execution eager,compiled] [--batch 1,8] [--images 20] [--threads 2] [--out speeds.json]

ResNet-50 with FPN, frozen norms, 80 classes, photographs of 800 × 1333 (`@448`: of that short side), random weights
whose classifiers are loud enough that a hundred instances are found. Every precision is timed at every batch in every
execution; the methods take turns in one process (`maskbench.evaluation.speed` is the stopwatch): from bytes in host
memory to every mask of the photo. A batch's latency is a median, its phases are means. A random network's objects cost
what a hundred real ones cost at the most: their candidates fill every limit, and their masks are large.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import torch
from torch.nn import functional as F

from maskbench.evaluation.execution import EXECUTIONS
from maskbench.evaluation.precision import PRECISIONS
from maskbench.evaluation.speed import Speed, measure
from maskbench.methods.base import Segmenter
from maskbench.phases import PHASES
from maskbench.runtime.compose import build_method, composed
from maskbench.runtime.verb import config_folder
from maskbench.structures import Batch, Frame, Instances

CLASSES = tuple(f"class {label}" for label in range(80))
PAPERS = sorted(path.stem for path in (config_folder() / "method").glob("*.yaml") if "_target_" in path.read_text())
SHORT, ASPECT = 800, 1333 / 800
LOUD = {"box_head.classify": 0.1, "cascade.heads": 0.1, "classify": 0.05}
"""Standard deviations of what classifies: regions (in stages or not), or the cells of a grid or map."""
DRAWN = ("masks", "columns", "rows")
"""What draws a mask for each cell of a grid, and starts where it draws none."""


def built(stem: str) -> Segmenter:
    """A method of the papers' settings in which something is found everywhere."""
    cfg = composed("train", [f"method={stem}", "backbone=resnet50", "backbone.weights=scratch"])
    method = build_method(cfg, CLASSES)
    torch.manual_seed(0)
    for name, weight in method.named_parameters():
        for part, std in LOUD.items():
            if name.startswith(part) and name.endswith("classify.weight"):
                torch.nn.init.normal_(weight, std=std)
        if name.startswith(DRAWN):
            torch.nn.init.normal_(weight, mean=float(name.endswith("bias")), std=0.1)
    for name, buffer in method.backbone.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.25)  # or features grow with the depth of a random network
    return method


def photos(short: int, count: int) -> Batch:
    """Photographs of soft noise, padded to the pyramid's coarsest stride."""
    torch.manual_seed(1)
    size = (short, round(short * ASPECT))
    noise = F.interpolate(255 * torch.rand(count, 3, 50, 84), size=size, mode="bilinear").to(torch.uint8)
    padded = F.pad(noise, (0, -size[1] % 32, 0, -size[0] % 32))
    frames = tuple(Frame(number, size, size) for number in range(count))
    return Batch(padded, tuple(Instances.empty(size) for _ in frames), frames)


def by_size(methods: Mapping[str, Segmenter]) -> dict[int, dict[str, Segmenter]]:
    """Methods, by `stem` or `stem@short`, that are given photographs of one short side and can take turns."""
    groups: dict[int, dict[str, Segmenter]] = {}
    for name, method in methods.items():
        groups.setdefault(int(name.partition("@")[2] or SHORT), {})[name] = method
    return groups


def show(found: Mapping[str, Speed], title: str) -> None:
    print(f"\n{title}\n\n| method | images/s | median ms | {' | '.join(PHASES)} | peak MB | instances |")
    print("| :-- " + "| --: " * (len(PHASES) + 4) + "|")
    for name, speed in found.items():
        phases = [f"{speed.phases[phase]:.1f}" if phase in speed.phases else "" for phase in PHASES]
        memory = "" if speed.memory_mb is None else f"{speed.memory_mb:.0f}"
        cells = [name, f"{speed.fps:.3g}", f"{speed.latency_ms:.1f}", *phases, memory]
        print(f"| {' | '.join(cells)} | {speed.samples[0][0]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(PAPERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=PRECISIONS[0])
    parser.add_argument("--execution", default=EXECUTIONS[0])
    parser.add_argument("--batch", default="1")
    parser.add_argument("--images", type=int, default=5, help="images that are timed at the least")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a file for all numbers")
    chosen = parser.parse_args()
    groups = by_size({name: built(name.partition("@")[0]) for name in chosen.methods.split(",")})
    numbers = {}
    for setting in product(*(value.split(",") for value in (chosen.precision, chosen.batch, chosen.execution))):
        precision, batch, execution = setting
        how = {"device": chosen.device, "precision": precision, "execution": execution, "threads": chosen.threads}
        found: dict[str, Speed] = {}
        for short, methods in groups.items():
            found |= measure(methods, [photos(short, int(batch))], images=chosen.images, **how)
        title = f"{precision}, {batch} a batch, {execution}"
        show(found, title)
        numbers[title] = {name: speed.as_dict() for name, speed in found.items()}
        if chosen.out:
            chosen.out.write_text(json.dumps(numbers))


if __name__ == "__main__":
    main()
