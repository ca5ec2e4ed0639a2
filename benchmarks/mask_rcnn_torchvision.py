"""Our Mask R-CNN against torchvision's: the same weights and photograph, taking turns in one process.

    python benchmarks/mask_rcnn_torchvision.py [--threads 2] [--repeats 5] [--device cuda]

Prints medians in seconds, their ratios, and the peak memory of a prediction and of a training step, each measured in a
process of its own. The last line is JSON. ResNet-50 with FPN, frozen norms, 80 classes, one photograph of 800 × 1333.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN as Torchvision
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import make
from maskbench.structures import Batch, Frame, Instances, Masks
from maskbench.weights.converting import publish
from maskbench.weights.fitting import fit

CLASSES = tuple(f"class {label}" for label in range(80))
SIZE, PADDED = (800, 1333), (800, 1344)
WORK = ("predict", "train")
WHO = ("torchvision", "maskbench")


def torchvisions() -> Torchvision:
    """Random weights at which a hundred instances are found and no feature grows beyond measure."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that torchvision itself has deprecated
        body = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
        )
    model = Torchvision(body, len(CLASSES) + 1)
    for name, weight in model.named_parameters():
        if name.endswith("cls_score.weight"):
            torch.nn.init.normal_(weight, std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("bn3.weight"):
            buffer.fill_(0.25)
    model.transform.resize = lambda image, target: (image, target)  # resampling is no part of the comparison
    return model


def ours(theirs: Torchvision) -> Segmenter:
    """The same network, of the same weights, as `build_method` would hand it to a trainer."""
    published = publish(theirs.state_dict(), layout="torchvision", method="mask_rcnn", style="pytorch", classes=CLASSES)
    assert published.method is not None
    method: Segmenter = make(published.method, backbone=make(published.backbone), classes=CLASSES)
    fit(method, published.weights)
    return method.to(memory_format=torch.channels_last)


def photo() -> Batch:
    """Soft noise with ten rectangles as its truth."""
    torch.manual_seed(1)
    image = F.interpolate(255 * torch.rand(1, 3, 50, 84), size=SIZE, mode="bilinear")[0].to(torch.uint8)
    masks = torch.zeros(10, *PADDED, dtype=torch.bool)
    for row, mask in enumerate(masks):
        mask[40 * row : 40 * row + 300, 100 * row : 100 * row + 250] = True
    target = Instances(Masks(masks), Masks(masks).boxes(), torch.arange(10), torch.ones(10))
    padded = F.pad(image, (0, PADDED[1] - SIZE[1], 0, PADDED[0] - SIZE[0]))
    return Batch(padded[None], (target,), (Frame(1, SIZE, SIZE),))


def workload(who: str, work: str, device: torch.device) -> Callable[[], object]:
    """What is timed: a photograph's instances, or a training step without the optimiser's."""
    theirs, batch = torchvisions(), photo().to(device)
    network = (theirs if who == "torchvision" else ours(theirs)).to(device)
    network.train(work == "train")
    if who == "maskbench":
        assert isinstance(network, Segmenter)
        return (lambda: step(network, network.loss(batch))) if work == "train" else (lambda: predicted(network, batch))
    image = batch.images[0, :, : SIZE[0], : SIZE[1]] / 255
    if work == "predict":
        return lambda: looked_at(theirs, image)
    (target,) = batch.targets
    truth = {
        "boxes": target.boxes,
        "labels": target.labels + 1,
        "masks": target.masks.dense()[:, : SIZE[0], : SIZE[1]].to(torch.uint8),
    }
    return lambda: step(theirs, theirs([image], [dict(truth)]))


@torch.inference_mode()
def predicted(method: Segmenter, batch: Batch) -> int:
    return len(method.predict(batch)[0])


@torch.inference_mode()
def looked_at(theirs: Torchvision, image: Tensor) -> int:
    """torchvision's masks are probabilities: they are asked for what ours are."""
    (found,) = theirs([image])
    return len(found["masks"] > 0.5)


def step(network: torch.nn.Module, losses: dict[str, Tensor]) -> None:
    network.zero_grad()
    torch.stack(list(losses.values())).sum().backward()


def timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(who: str, work: str, device: torch.device) -> float:
    """Megabytes that the network and its work took at their largest, of this process or of the device.

    On a CPU what the process held before there was a network, the libraries, is taken off; so is what building it left
    behind, since ours is made of torchvision's.
    """
    libraries = resident("VmRSS")
    run = workload(who, work, device)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        run()
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else resident("VmHWM") - libraries


def resident(which: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at the most (getrusage's starts with that of the process before)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", nargs=2, metavar=("WHO", "WORK"), help="print the peak memory of one of them")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    if chosen.memory:
        print(peak_memory(*chosen.memory, device))
        return
    found: dict[str, dict[str, float]] = {}
    for work in WORK:
        runs = {who: workload(who, work, device) for who in WHO}
        for run in runs.values():
            run()
        times = {who: [] for who in WHO}
        for _ in range(chosen.repeats):
            for who, run in runs.items():
                times[who].append(timed(run, device))
        found[work] = {who: statistics.median(times[who]) for who in WHO}
        own = [sys.executable, __file__, "--threads", str(chosen.threads), "--device", chosen.device, "--memory"]
        for who in WHO:
            said = subprocess.run([*own, who, work], capture_output=True, text=True, check=True).stdout
            found[work][f"{who}_mb"] = float(said.split()[-1])
        found[work]["time_ratio"] = found[work]["maskbench"] / found[work]["torchvision"]
        found[work]["memory_ratio"] = found[work]["maskbench_mb"] / found[work]["torchvision_mb"]
        print(work, {name: round(value, 3) for name, value in found[work].items()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
