"""A finished study that nobody trained, for benchmarks/sweep.py: thirteen methods × seeds of drawn shapes.

The folders have the names that a sweep gives them, for Hydra composes each trial by itself, and every file that a
report reads: the config, matches of 200 photos with twenty detections each, photos. The numbers are plausible, and none
of them was measured.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from maskbench.evaluation.bootstrap import whole_ap
from maskbench.evaluation.errors import KINDS, MASK_KINDS
from maskbench.evaluation.matches import FILE, Matches, write_matches
from maskbench.evaluation.matching import THRESHOLDS
from maskbench.runtime.trial import Composed, identify
from maskbench.runtime.verb import config_folder
from maskbench.study.runs import PHOTOS
from maskbench.sweep.identity import fairness
from maskbench.sweep.status import Status

METHODS = sorted(path.stem for path in (config_folder() / "method").glob("*.yaml") if "_target_" in path.read_text())


def overrides(runs: Path, seeds: int) -> list[str]:
    methods = ",".join(f"small/{method}" for method in METHODS)
    return [f"method={methods}", f"seed={','.join(map(str, range(seeds)))}", *common(runs, f"seeds{seeds}")]


def common(runs: Path, study: str) -> list[str]:
    return ["experiment=shapes", f"runs={runs}", f"study={study}"]


def write(runs: Path, seeds: int) -> Path:
    """A study whose trials are all done, and nobody trained them."""
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        for method in METHODS:
            given = [f"method=small/{method}", *common(runs, f"seeds{seeds}")]
            for seed in range(seeds):
                cfg = compose("train", [*given, f"seed={seed}"], return_hydra_config=True)
                own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
                write_run(identify(own, cfg.hydra.runtime.choices), METHODS.index(method), seed)
    return runs / f"seeds{seeds}"


def write_run(trial: Composed, place: int, seed: int) -> None:
    """Plausible results, none of them measured."""
    rng = np.random.default_rng([place, seed])
    met = matches(0.5 + 0.03 * place + 0.01 * float(rng.standard_normal()), rng)
    ap = whole_ap(met)
    name, settings = trial.cfg.method_name, OmegaConf.to_container(trial.cfg)
    trial.folder.mkdir(parents=True)
    OmegaConf.save(trial.cfg, trial.folder / "config.yaml")
    machine = {"device": "CPU", "threads": 1, "commit": "0f" * 20, "python": "3.11.7", "torch": "2.15.0"}
    paradigm = ("two-stage", "one-stage", "bottom-up")[place % 3]
    contents = {
        "fairness": fairness(settings, trial.fingerprint, machine),
        "data": {"name": "shapes", "fingerprint": trial.fingerprint, "images": 1800, "instances": 6300}
        | {"sizes": [11.0, 16.0, 21.4, 27.0, 33.0], "crowding": 0.35},
        "metrics": {"method": name, "paradigm": paradigm, "seed": seed, "minutes": 3.0, "epochs": 4} | numbers(ap),
        "speed": speed(20.0 + 8 * place),
    }
    for stem, content in contents.items():
        (trial.folder / f"{stem}.json").write_text(json.dumps(content))
    head = "epoch,step,images,minutes,lr,images_per_second,memory_mb,train/loss,tune/AP,tune/AP50\n"
    rows = [f"{epoch},{225 * epoch},{1800 * epoch},1,0.001,42,900,{2 / (epoch + 1)},{ap},0.9\n" for epoch in range(4)]
    (trial.folder / "history.csv").write_text(head + "".join(rows))
    write_matches(trial.folder / FILE, met)
    write_photos(trial.folder / "thumbnails", rng)
    Status(pid=1).done().write(trial.folder)


def numbers(ap: float) -> dict[str, Any]:
    """What metrics.json has of one method."""

    def scores(value: float) -> dict[str, float]:
        sizes = {"APs": value - 0.06, "APm": value + 0.09, "APl": -1.0}
        return {"AP": value, "AP50": min(value + 0.27, 1.0), "AP75": value + 0.04, **sizes, "AR100": value + 0.05}

    gains = dict.fromkeys((*KINDS, *MASK_KINDS), 0.02)
    strata = {part: {"AP": ap, "truths": 233} for part in ("none", "some", "many")}
    counts = {"dic": 0.5, "abs_dic": 1.37, "exact": 0.2, "sbd": 0.842}
    rates = dict.fromkeys(("precision", "recall", "f1"), ap + 0.2)
    kept = {"detections": 800, "truths": 700, **rates, "accuracy": {"0.50": ap}, "mean_accuracy": ap - 0.1, "pq": ap}
    kept |= {"counting": {"overall": counts, "per_class": dict.fromkeys(("disc", "rectangle", "triangle"), counts)}}
    return {
        "checkpoint": "last",
        "images_seen": 7200,
        "split": "test",
        "images": 200,
        "segm": scores(ap),
        "bbox": scores(ap + 0.03),
        "per_class": {"segm": dict.fromkeys(("disc", "rectangle", "triangle"), ap)},
        "ceiling": {"segm": scores(0.93)},
        "errors": {"segm": {"ap50": ap + 0.27, "counts": dict.fromkeys(gains, 7), "gains": gains, "rest": 0.1}},
        "strata": {"segm": {"crowding": strata, "occlusion": strata}},
        "tune": {"segm": scores(ap - 0.01)},
        "deployment": {"threshold": 0.43, "tune": kept, "test": kept},
        "oracles": {"classes": scores(ap + 0.02)},
        "reach": {},
        "score_rule": None,
    }


def speed(fps: float) -> dict[str, Any]:
    phases = {"prepare": 1.0, "backbone": 500 / fps, "heads": 200 / fps, "selection": 300 / fps - 1, "masks": 0.0}
    return {
        "latency_ms": 1000 / fps,
        "p95_ms": 1300 / fps,
        "fps": fps,
        "phases": phases,
        "samples": [[found, (900 + 20 * found) / fps] for found in range(50)],
        "deployment": {"fps": 1.1 * fps},
        "memory_mb": 38.0,
        "parameters": 1_500_000,
        "flops": 1_900_000_000,
        "flops_instances": 4,
        "device_name": "CPU",
        "threads": 1,
        "precision": "32-true",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "loaded": False,
    }


def matches(quality: float, rng: np.random.Generator, photos: int = 200, found: int = 20) -> Matches:
    """Of photos with three or four truths of three classes; the better, the more detections lie on one."""
    truth_image = np.repeat(np.arange(photos), rng.integers(3, 5, photos))
    truth_label = rng.integers(0, 3, len(truth_image))
    image = np.repeat(np.arange(photos), found)
    label = rng.integers(0, 3, len(image))
    hit = np.flatnonzero(rng.random(len(truth_image)) < 0.95)
    overlap, score = np.zeros(len(image)), 0.3 * rng.random(len(image))
    slots = found * truth_image[hit] + (hit - np.searchsorted(truth_image, truth_image[hit]))
    label[slots], overlap[slots] = truth_label[hit], rng.beta(8 * quality, 8 * (1 - quality), len(hit))
    score[slots] = (overlap[slots] + 0.1 * rng.standard_normal(len(hit))).clip(0, 1)
    order = np.lexsort((-score, label))
    strata = ("all", "small", "medium", "large")
    right = np.repeat((overlap[order, None] >= THRESHOLDS)[:, None], len(strata), axis=1)
    return Matches(
        images=tuple(range(photos)),
        classes=(1, 2, 3),
        names=("disc", "rectangle", "triangle"),
        strata=strata,
        image=image[order],
        label=label[order],
        score=score[order],
        rank=np.tile(np.arange(found), photos)[order],
        right=right,
        wrong=~right,
        overlap=overlap[order],
        truth_image=truth_image,
        truth_label=truth_label,
        counted=np.ones((len(truth_image), len(strata)), dtype=bool),
    )


def write_photos(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    kept = {}
    for image_id in range(4):
        pixels = rng.integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((128, 128)).save(folder / f"{image_id}.jpg")
        outline = {"name": "disc", "path": "M10 10h28v28h-28Z"}
        drawn = [outline | {"score": 0.9, "iou": 0.8}]
        kept[image_id] = {"size": [128, 128], "f1": float(rng.random()), "truth": [outline], "found": drawn}
    (folder / PHOTOS).write_bytes(gzip.compress(json.dumps({"score": 0.3, "photos": kept}).encode()))
