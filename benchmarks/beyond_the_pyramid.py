"""How much of a prediction each method spends outside backbone and feature pyramid, at the papers' settings.

    python benchmarks/beyond_the_pyramid.py [--methods mask_rcnn,solo] [--threads 2] [--repeats 5] [--device cuda]

ResNet-50 with FPN, frozen norms, 80 classes, one photograph of 800 × 1333, random weights whose classifiers are loud
enough that a hundred instances are found. The methods take turns in one process; medians in seconds. The last line is
JSON. A random network's objects cost what a hundred real ones cost at the most: their candidates fill every limit.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from hydra import compose, initialize_config_dir
from mask_rcnn_torchvision import CLASSES, photo, predicted, timed

from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_method
from maskbench.runtime.verb import config_folder
from maskbench.structures import Batch

PAPERS = sorted(path.stem for path in (config_folder() / "method").glob("*.yaml") if "_target_" in path.read_text())
LOUD = {"box_head.classify": 0.1, "cascade.heads": 0.1, "classify": 0.02}
"""Standard deviations of what classifies: regions (in stages or not), or the cells of a grid or map."""


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
    for name, buffer in method.backbone.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.25)  # or features grow with the depth of a random network
    return method.to(memory_format=torch.channels_last)


@torch.inference_mode()
def levels(method: Segmenter, batch: Batch) -> object:
    """Backbone and pyramid alone."""
    return method.fpn(method.backbone(method.prepare(batch)))


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
    whole: dict[str, list[float]] = {stem: [] for stem in methods}
    pyramid: dict[str, list[float]] = {stem: [] for stem in methods}
    for _ in range(chosen.repeats):
        for stem, method in methods.items():
            whole[stem].append(timed(lambda method=method: predicted(method, batch), device))
            pyramid[stem].append(timed(lambda method=method: levels(method, batch), device))
    table = {}
    for stem in methods:
        total, inside = statistics.median(whole[stem]), statistics.median(pyramid[stem])
        table[stem] = {"s": total, "pyramid_s": inside, "share_outside": 1 - inside / total, "instances": found[stem]}
        print(f"{stem:20}", {name: round(value, 3) for name, value in table[stem].items()})
    print(json.dumps(table))


if __name__ == "__main__":
    main()
