"""Other systems' results in a study: scored as its runs are, kept beside them, on a footing that nobody knows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as rle_codec

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError
from maskbench.evaluation.average_precision import as_metrics, score
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import write_matches
from maskbench.evaluation.overlaps import IouType
from maskbench.evaluation.results import Result, read_predictions
from maskbench.runtime.compose import build_data
from maskbench.runtime.pictures import write_thumbnails
from maskbench.runtime.run_folder import RunFolder, write_json
from maskbench.runtime.timing import finished_runs
from maskbench.study.runs import GUESTS
from maskbench.sweep.identity import trial_name
from maskbench.sweep.status import Status

KEYS = ("name", "predictions", "speed")


def invite(study: Path, guests: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Score COCO results of other systems on the study's test split and keep them in `STUDY/guests`.

    Args:
        study: the folder; its first finished run says what the test split is.
        guests: `name`, `predictions` (a file of COCO results) and, if it is known, `speed` in FPS.

    Returns:
        The folders of the guests.

    Raises:
        ConfigError: a guest lacks a name or predictions, or has what is not known.
        DataError: results can't be read or are of other photos.
        RunError: the study has no finished run.
    """
    for guest in guests:
        _require_known(guest)
    cfg = RunFolder(finished_runs(study)[0]).read_config()
    data = build_data(cfg)
    truth = GroundTruth(data.annotations("test"), data.image_ids("test"))
    return [_seat(study, guest, data, truth, cfg.evaluation.point.max_instances) for guest in guests]


def _require_known(guest: Mapping[str, Any]) -> None:
    unknown = [key for key in guest if key not in KEYS]
    name, speed = str(guest.get("name") or ""), guest.get("speed")
    if unknown or not guest.get("predictions") or not re.fullmatch(r"[\w.+-]+", name):
        raise ConfigError(
            f"guests={dict(guest)}: expected {{name: WORD, predictions: FILE}} and, if it is known, speed: FPS"
        )
    if speed is not None and not (isinstance(speed, int | float) and speed > 0):
        raise ConfigError(f"guests: {name} has speed={speed!r}; expected images a second, or no speed at all")


def _seat(study: Path, guest: Mapping[str, Any], data: CocoDataModule, truth: GroundTruth, max_instances: int) -> Path:
    results = [_as_ours(truth, result, index) for index, result in enumerate(read_predictions(guest["predictions"]))]
    kinds: tuple[IouType, ...] = ("segm", "bbox")
    scores = {
        kind: score(truth, results, iou_type=kind, max_instances=max_instances, why=kind == "segm") for kind in kinds
    }
    content = hashlib.sha256(json.dumps(results).encode()).hexdigest()[:8]
    run = RunFolder(study / GUESTS / trial_name(guest["name"], 0, content))
    write_matches(run.matches, scores["segm"].matches)
    write_thumbnails(run.thumbnails, data, results)
    if guest.get("speed") is not None:
        speed = float(guest["speed"])
        write_json(run.speed, {"fps": speed, "latency_ms": 1000 / speed, "device_name": "as it was told"})
    about = {
        "paradigm": "guest",
        "split": "test",
        "images": len(truth.images),
        "predictions": str(guest["predictions"]),
    }
    write_json(run.metrics, {**about, **as_metrics(scores)})
    Status.begin(run.path).done().write(run.path)
    return run.path


def _as_ours(truth: GroundTruth, result: Result, index: int) -> Result:
    """A record as our own predictions have it: run lengths as text, and the mask's box where it has none."""
    image_id = result["image_id"]
    if image_id not in truth.images or not result.get("segmentation"):
        return result  # scoring says what is wrong with it
    rle = truth.encode(result["segmentation"], image_id, f"record {index} (image {image_id})")
    counts = rle["counts"] if isinstance(rle["counts"], str) else rle["counts"].decode("ascii")
    box = result.get("box") or result.get("bbox") or rle_codec.toBbox(rle).tolist()
    kept: Result = {key: result[key] for key in ("image_id", "category_id", "score", "bbox") if key in result}
    return {**kept, "segmentation": {"size": list(rle["size"]), "counts": counts}, "box": box}
