"""Our Mask R-CNN against torchvision's: the same weights and photograph, taking turns in one process.

    python benchmarks/mask_rcnn_torchvision.py [--threads 2] [--repeats 5] [--device cuda] [--precision bf16-mixed]
        [--batch 8]

Prints medians in seconds, their ratios, and the peak memory of a prediction and of a training step, each measured in a
process of its own. The last line is JSON. ResNet-50 with FPN, frozen norms, 80 classes, photographs of
800 × 1333, in host memory when a prediction begins.
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
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN as Torchvision
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from maskbench.evaluation.autocast import autocast
from maskbench.evaluation.precision import PRECISIONS
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import make
from maskbench.structures import Batch, Frame, Instances, Masks
from maskbench.weights.converting import publish
from maskbench.weights.fitting import fit

CLASSES = tuple(f"class {label}" for label in range(80))
SIZE, PADDED = (800, 1333), (800, 1344)
WORK = ("predict", "train")
WHO = ("torchvision", "maskbench")
FOUND = 100
"""Instances of a photograph: all that either keeps, or neither would draw and paste as many masks as it may have to."""


def torchvisions() -> Torchvision:
    """Random weights at which `FOUND` instances are found and no feature grows beyond measure."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arguments that torchvision itself has deprecated
        body = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=3
        )
    model = Torchvision(body, len(CLASSES) + 1)
    for name, weight in model.named_parameters():
        if name.endswith("cls_score.weight"):
            torch.nn.init.normal_(weight, std=1.0)
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


def photos(count: int) -> Batch:
    """Soft noise with ten rectangles as its truth."""
    torch.manual_seed(1)
    images = F.interpolate(255 * torch.rand(count, 3, 50, 84), size=SIZE, mode="bilinear").to(torch.uint8)
    masks = torch.zeros(10, *PADDED, dtype=torch.bool)
    for row, mask in enumerate(masks):
        mask[40 * row : 40 * row + 300, 100 * row : 100 * row + 250] = True
    target = Instances(Masks(masks), Masks(masks).boxes(), torch.arange(10), torch.ones(10))
    padded = F.pad(images, (0, PADDED[1] - SIZE[1], 0, PADDED[0] - SIZE[0]))
    return Batch(padded, (target,) * count, tuple(Frame(number, SIZE, SIZE) for number in range(count)))


def workload(who: str, work: str, setting: argparse.Namespace) -> Callable[[], object]:
    """What is timed: the instances of a batch, or a training step without the optimiser's."""
    theirs, batch, device = torchvisions(), photos(setting.batch), torch.device(setting.device)
    network = (theirs if who == "torchvision" else ours(theirs)).to(device)
    network.train(work == "train")
    made: dict[tuple[str, str], Callable[..., Callable[[], object]]] = {
        ("torchvision", "predict"): prediction_of_torchvision,
        ("torchvision", "train"): step_of_torchvision,
        ("maskbench", "predict"): prediction,
        ("maskbench", "train"): step,
    }
    run = made[who, work](network, batch, device)

    def cast() -> object:
        with autocast(device, setting.precision):
            return run()

    return cast


def prediction(method: Segmenter, batch: Batch, device: torch.device) -> Callable[[], object]:
    return torch.inference_mode()(lambda: method.predict(replace(batch, images=batch.images.to(device))))


def prediction_of_torchvision(theirs: Torchvision, batch: Batch, device: torch.device) -> Callable[[], object]:
    """torchvision's masks are probabilities: they are asked for what ours are."""
    images = unpadded(batch)
    return torch.inference_mode()(lambda: [found["masks"] > 0.5 for found in theirs(list(images.to(device) / 255))])


def check(made: Mapping[str, Any], images: int) -> None:
    """That what is timed is the work it is taken for: masks of `FOUND` instances an image, on both sides."""
    counts = {who: tuple(len(found) for found in answer) for who, answer in made.items()}
    if set(counts.values()) != {(FOUND,) * images}:
        raise SystemExit(f"expected {FOUND} instances of each of {images} images, found {counts}: nothing was timed")


def step(method: Segmenter, batch: Batch, device: torch.device) -> Callable[[], object]:
    there = batch.to(device)
    return partial(descend, method, lambda: method.loss(there))


def step_of_torchvision(theirs: Torchvision, batch: Batch, device: torch.device) -> Callable[[], object]:
    images = list(unpadded(batch).to(device) / 255)
    truths = [truth_of(target) for target in batch.to(device).targets]
    return partial(descend, theirs, lambda: theirs(images, [dict(truth) for truth in truths]))


def descend(network: torch.nn.Module, loss: Callable[[], dict[str, Tensor]]) -> None:
    network.zero_grad()
    torch.stack(list(loss().values())).sum().backward()


def unpadded(batch: Batch) -> Tensor:
    """torchvision pads for itself."""
    return batch.images[:, :, : SIZE[0], : SIZE[1]].contiguous()


def truth_of(target: Instances) -> dict[str, Tensor]:
    """A target as torchvision takes it."""
    masks = target.masks.dense()[:, : SIZE[0], : SIZE[1]].to(torch.uint8)
    return {"boxes": target.boxes, "labels": target.labels + 1, "masks": masks}


def timed(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(who: str, work: str, setting: argparse.Namespace) -> float:
    """Megabytes that the network and its work took at their largest, of this process or of the device.

    On a CPU what the process held before there was a network, the libraries, is taken off; so is what building it left
    behind, since ours is made of torchvision's.
    """
    on_gpu, libraries = setting.device != "cpu", resident("VmRSS")
    run = workload(who, work, setting)
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    for _ in range(3):
        run()
    return torch.cuda.max_memory_allocated() / 2**20 if on_gpu else resident("VmHWM") - libraries


def peak_apart(who: str, work: str) -> float:
    """The same, in a process in which nothing was before."""
    own = [sys.executable, __file__, *sys.argv[1:], "--memory", who, work]
    return float(subprocess.run(own, capture_output=True, text=True, check=True).stdout.split()[-1])


def resident(which: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at the most (getrusage's starts with that of the process before)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default=PRECISIONS[0], choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--memory", nargs=2, metavar=("WHO", "WORK"), help="print the peak memory of one of them")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    if chosen.memory:
        who, work = chosen.memory
        print(peak_memory(who, work, chosen))
        return
    found: dict[str, dict[str, float]] = {}
    for work in WORK:
        memory = {f"{who}_mb": peak_apart(who, work) for who in WHO}
        runs = {who: workload(who, work, chosen) for who in WHO}
        warm = {who: run() for who, run in runs.items()}
        if work == "predict":
            check(warm, chosen.batch)
        times: dict[str, list[float]] = {who: [] for who in WHO}
        for _ in range(chosen.repeats):
            for who, run in runs.items():
                times[who].append(timed(run, device))
        found[work] = {who: statistics.median(times[who]) for who in WHO} | memory
        found[work]["time_ratio"] = found[work]["maskbench"] / found[work]["torchvision"]
        found[work]["memory_ratio"] = found[work]["maskbench_mb"] / found[work]["torchvision_mb"]
        print(work, {name: round(value, 3) for name, value in found[work].items()})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
