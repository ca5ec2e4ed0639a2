"""How much of a prediction each method spends outside backbone and feature pyramid, at the papers' settings.

    python benchmarks/beyond_the_pyramid.py [--methods mask_rcnn,solo] [--threads 2] [--repeats 5] [--device cuda]

ResNet-50 with FPN, frozen norms, 80 classes, one photograph of 800 × 1333, random weights whose classifiers are loud
enough that a hundred instances are found. The methods take turns in one process; medians in seconds: backbone and
pyramid, the heads that run on whole maps, and the rest, from candidates to masks of the photo (with the heads that run
on regions). The last line is JSON. A random network's objects cost what a hundred real ones cost at the most: their
candidates fill every limit, and their masks are large.
"""

from __future__ import annotations

import argparse
import json
import statistics
from functools import partial

import torch
from hydra import compose, initialize_config_dir
from mask_rcnn_torchvision import CLASSES, photo, predicted, timed

from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method
from maskbench.runtime.verb import config_folder
from maskbench.structures import Batch

PAPERS = sorted(path.stem for path in (config_folder() / "method").glob("*.yaml") if "_target_" in path.read_text())
LOUD = {"box_head.classify": 0.1, "cascade.heads": 0.1, "classify": 0.05}
"""Standard deviations of what classifies: regions (in stages or not), or the cells of a grid or map."""
DRAWN = ("masks", "columns", "rows")
"""What draws a mask for each cell of a grid, and starts where it draws none."""


def built(stem: str) -> Segmenter:
    """A method of the papers' settings in which something is found everywhere."""
    torch.manual_seed(0)
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        cfg = compose("train", [f"method={stem}", "backbone=resnet50", "backbone.weights=scratch"])
    method = build_method(cfg, CLASSES).eval()
    for name, weight in method.named_parameters():
        for part, std in LOUD.items():
            if name.startswith(part) and name.endswith("classify.weight"):
                torch.nn.init.normal_(weight, std=std)
        if name.startswith(DRAWN):
            torch.nn.init.normal_(weight, mean=float(name.endswith("bias")), std=0.1)
    for name, buffer in method.backbone.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.25)  # or features grow with the depth of a random network
    return method.to(memory_format=torch.channels_last)


@torch.inference_mode()
def levels(method: Segmenter, batch: Batch) -> object:
    """Backbone and pyramid alone."""
    return method.fpn(method.backbone(method.prepare(batch)))


@torch.inference_mode()
def network(method: Segmenter, batch: Batch) -> object:
    """What runs on whole maps."""
    return method(method.prepare(batch))


PARTS = {"pyramid": levels, "network": network, "whole": predicted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(PAPERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    batch = photo().to(device)
    methods = {stem: built(stem).to(device) for stem in chosen.methods.split(",")}
    found = {stem: predicted(method, batch) for stem, method in methods.items()}
    times: dict[tuple[str, str], list[float]] = {(stem, part): [] for stem in methods for part in PARTS}
    for _ in range(chosen.repeats):
        for stem, method in methods.items():
            for part, run in PARTS.items():
                times[stem, part].append(timed(partial(run, method, batch), device))
    table = {}
    for stem in methods:
        pyramid, maps, whole = (statistics.median(times[stem, part]) for part in PARTS)
        table[stem] = {
            "s": whole,
            "pyramid_s": pyramid,
            "heads_s": maps - pyramid,
            "rest_s": whole - maps,
            "share_outside": 1 - pyramid / whole,
            "instances": found[stem],
        }
        print(f"{stem:20}", {name: round(value, 3) for name, value in table[stem].items()})
    print(json.dumps(table))


if __name__ == "__main__":
    main()
