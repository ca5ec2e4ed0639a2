"""A study as a sweep leaves it behind: plausible numbers, none of them measured."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from finders import found_with
from maskbench.evaluation.bootstrap import whole_ap
from maskbench.evaluation.errors import KINDS, MASK_KINDS
from maskbench.evaluation.matches import FILE, write_matches
from maskbench.study.runs import PHOTOS
from maskbench.sweep.identity import fairness, trial_hash, trial_name
from maskbench.sweep.status import Status

METHODS = {  # paradigm, AP, FPS, million parameters, GFLOPs, training minutes, score rule
    "mask_rcnn-small": ("two-stage", 0.567, 31.0, 1.62, 1.9, 3.9, None),
    "solov2-small": ("one-stage", 0.634, 58.0, 1.41, 1.1, 3.6, None),
    "discriminative-small": ("bottom-up", 0.551, 71.0, 1.38, 0.9, 3.4, "semantic_x_compactness"),
}
GIVEN = {"two-stage": "boxes", "one-stage": "cells", "bottom-up": "semantic map"}
HUES = ((214, 69, 65), (63, 126, 201), (72, 163, 96), (222, 164, 54), (142, 92, 180))
VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}

DATA = {
    "name": "shapes",
    "fingerprint": "d41d8cd98f",
    "images": 2000,
    "instances": 7000,
    "sizes": [11.0, 16.0, 21.4, 27.0, 33.0],
    "crowding": 0.347,
}

Writer = Callable[..., Path]


def config(method: str, seed: int, /, **changes: Any) -> dict[str, Any]:
    base = {
        "data": {"root": {"_target_": "maskbench.data.shapes.draw", "hue": "class"}, "batch": 8, "workers": 0},
        "transforms": {"train": {"scale": [1.0, 1.0]}, "eval": {"short": None}},
        "backbone": {"name": "resnet18", "weights": "scratch"},
        "optim": {"optimiser": {"lr": 0.002}},
        "trainer": {"max_epochs": 5, "precision": "bf16-mixed", "devices": 1},
        "evaluation": {"point": {"score_threshold": 0.0, "max_instances": 100}},
        "method": {"_target_": f"maskbench.methods.{method}"},
        "method_name": method,
        "seed": seed,
    }
    return base | changes


def write_run(
    study: Path,
    method: str,
    seed: int,
    /,
    *,
    failed: str | None = None,
    machine: str = "AMD EPYC 9554",
    loaded: bool = False,
    commit: str = "0f" * 20,
    pictures: bool = True,
    found: float | None = None,
    fingerprint: str = "d41d8cd98f",
    **changes: Any,
) -> Path:
    """One run folder, done or failed in its second epoch; it has matches if it is told which share it `found`."""
    paradigm, precision, fps, parameters, gflops, minutes, rule = METHODS[method]
    random = np.random.default_rng([len(method), seed])
    cfg = config(method, seed, **changes)
    folder = study / trial_name(method, seed, trial_hash(cfg, fingerprint))
    folder.mkdir(parents=True)
    keys = fairness(cfg, fingerprint, {"device": machine, "threads": 1, "commit": commit, **VERSIONS})
    write(folder / "fairness.json", keys)
    # JSON is YAML as well.
    write(folder / "config.yaml", cfg)
    write(folder / "data.json", DATA)
    precision += float(random.normal(0, 0.008))
    write_history(folder / "history.csv", precision, minutes, epochs=2 if failed else 5)
    if failed:
        Status(pid=1).failed(failed).write(folder)
        log = study / "logs" / f"{folder.name}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(f"Traceback\n{failed}\n")
        return folder
    if found is not None:
        matches = found_with(found, seed)
        precision = whole_ap(matches)
    write(folder / "metrics.json", metrics(method, paradigm, seed, precision, minutes, rule))
    write(folder / "speed.json", speed(fps * float(random.normal(1, 0.01)), parameters, gflops, machine, loaded))
    if found is not None:
        write_matches(folder / FILE, matches)
    if pictures:
        write_pictures(folder / "thumbnails", method)
    Status(pid=1).done().write(folder)
    return folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def metrics(
    method: str, paradigm: str, seed: int, precision: float, minutes: float, rule: str | None
) -> dict[str, Any]:
    def numbers(ap: float) -> dict[str, float]:
        sizes = {"APs": ap - 0.06, "APm": ap + 0.09, "APl": -1.0}
        return {"AP": ap, "AP50": min(ap + 0.27, 1), "AP75": ap + 0.04, **sizes, "AR100": ap + 0.05}

    classes = {"disc": precision + 0.03, "rectangle": precision, "triangle": precision - 0.03}
    return {
        "method": method,
        "paradigm": paradigm,
        "seed": seed,
        "checkpoint": "last",
        "epochs": 5,
        "images_seen": 9000,
        "minutes": minutes,
        "split": "test",
        "images": 200,
        "segm": numbers(precision),
        "bbox": numbers(precision + 0.03),
        "per_class": {"segm": classes, "bbox": classes},
        "ceiling": {"segm": numbers(0.93)},
        "errors": {"segm": why(precision)},
        "strata": {"segm": {"crowding": where(precision), "occlusion": where(precision)}},
        "tune": {"segm": numbers(precision - 0.01)},
        "deployment": {"threshold": 0.43, "tune": deployed(precision + 0.01), "test": deployed(precision)},
        "oracles": {"classes": numbers(precision + 0.02), GIVEN[paradigm]: numbers(precision + 0.1)},
        "reach": {"a cell": {"reached": 690, "of": 700}, "cells of one object, 12 a side": {"reached": 0, "of": 0}},
        "score_rule": rule,
    }


def deployed(precision: float) -> dict[str, Any]:
    rates = dict.fromkeys(("precision", "recall", "f1"), precision + 0.2)
    rest = {"accuracy": {"0.50": precision}, "mean_accuracy": precision - 0.1, "pq": precision - 0.05}
    counts = {"dic": 0.5, "abs_dic": 1.37, "exact": 0.2, "sbd": 0.842}
    counting = {"overall": counts, "per_class": dict.fromkeys(("disc", "rectangle", "triangle"), counts)}
    return {"detections": 800, "truths": 700, **rates, **rest, "counting": counting}


def why(precision: float) -> dict[str, Any]:
    gains = {kind: 0.02 * (place + 1) for place, kind in enumerate((*KINDS, *MASK_KINDS))}
    ap50 = min(precision + 0.27, 1)
    rest = 1 - ap50 - sum(gains[kind] for kind in KINDS)
    return {"ap50": ap50, "counts": dict.fromkeys(gains, 7), "gains": gains, "rest": rest}


def where(precision: float) -> dict[str, Any]:
    alone = {"AP": precision + 0.1, "truths": 400}
    return {"none": alone, "some": {"AP": precision - 0.1, "truths": 300}, "many": {"AP": -1.0, "truths": 0}}


def speed(fps: float, parameters: float, gflops: float, machine: str, loaded: bool) -> dict[str, Any]:
    return {
        "latency_ms": 1000 / fps,
        "p95_ms": 1300 / fps,
        "fps": fps,
        "phases": {"prepare": 1.0, "backbone": 500 / fps, "heads": 200 / fps, "selection": 300 / fps - 1, "masks": 0.0},
        "samples": [[found, (900 + 20 * found) / fps] for found in range(10)],
        "deployment": {"fps": 1.1 * fps},
        "memory_mb": 38.0,
        "parameters": int(parameters * 1e6),
        "flops": int(gflops * 1e9),
        "flops_instances": 4,
        "device_name": machine,
        "threads": 1,
        "precision": "bf16-mixed",
        "versions": VERSIONS,
        "loaded": loaded,
    }


def write_history(path: Path, precision: float, minutes: float, epochs: int) -> None:
    lines = ["epoch,step,images,minutes,lr,images_per_second,memory_mb,train/loss,tune/AP,tune/AP50"]
    for epoch in range(epochs):
        share = (epoch + 1) / 5
        ap = precision * (1 - (1 - share) ** 2.2) - 0.01
        lines.append(
            f"{epoch},{epoch * 225},{1800 * (epoch + 1)},{minutes * share},0.001,42.0,910.5,{2 - share},{ap},{ap + 0.2}"
        )
    path.write_text("\n".join(lines) + "\n")


def write_pictures(folder: Path, method: str) -> None:
    """Four photos with discs, and squares where the method sees them, the last photo as the worst."""
    folder.mkdir()
    photos = {}
    for place, image_id in enumerate((1007, 1010, 1013, 1019)):
        random = np.random.default_rng(image_id)
        centres = random.integers(18, 78, (4, 2))
        image = Image.new("RGB", (96, 96), (120, 134, 128))
        draw = ImageDraw.Draw(image)
        for x, y in centres:
            draw.ellipse([x - 14, y - 14, x + 14, y + 14], fill=HUES[place])
        image.save(folder / f"{image_id}.jpg")
        paths = [f"M{x - 14} {y - 14}h28v28h-28Z" for x, y in centres + len(method) % 5 - 2]
        truth = [{"name": "disc", "path": f"M{x - 14} {y - 14}h28v28h-28Z"} for x, y in centres]
        found = [{"name": "disc", "score": 0.9, "iou": 0.81, "path": path} for path in paths]
        photos[image_id] = {"size": [96, 96], "f1": 0.9 - 0.1 * place, "truth": truth, "found": found}
    (folder / PHOTOS).write_bytes(gzip.compress(json.dumps({"score": 0.3, "photos": photos}).encode()))


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    """Writes a run into the study `shapes` and returns its folder."""

    def write_one(method: str, seed: int = 0, /, **settings: Any) -> Path:
        return write_run(tmp_path / "shapes", method, seed, **settings)

    return write_one


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods and two seeds; one trial ran out of memory."""
    folder = tmp_path_factory.mktemp("finished")
    for method in METHODS:
        for seed in (0, 1):
            lost = method == "mask_rcnn-small" and seed == 1
            reason = "OutOfMemoryError: tried to allocate 2 GiB" if lost else None
            write_run(folder, method, seed, failed=reason)
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study, to be written to."""
    return Path(shutil.copytree(finished, tmp_path / "shapes"))
