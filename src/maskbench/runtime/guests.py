"""Other systems' results in a study: scored as its runs are, kept beside them, on a footing that nobody knows."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as rle_codec
from omegaconf import DictConfig

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError, RunError
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import write_matches
from maskbench.evaluation.oracles import with_true_classes
from maskbench.evaluation.overlaps import IouType
from maskbench.evaluation.results import Result, read_predictions
from maskbench.evaluation.scoring import as_metrics, score
from maskbench.runtime.compose import build_data
from maskbench.runtime.console import say
from maskbench.runtime.pictures import write_thumbnails
from maskbench.runtime.run_folder import RunFolder, write_json
from maskbench.study.runs import GUESTS, read_runs
from maskbench.sweep.identity import trial_name
from maskbench.sweep.status import Status

KEYS = ("name", "predictions", "speed")


def invite(study: Path, guests: Sequence[Any]) -> list[Path]:
    """Score COCO results of other systems on the study's test split and keep them in `STUDY/guests`.

    Args:
        study: the folder; the runs of its largest footing say what the test split is.
        guests: `name`, `predictions` (a file of COCO results) and, if it is known, `speed` in FPS.

    Returns:
        The folders of the guests.

    Raises:
        ConfigError: a guest lacks a name of its own or predictions, or has what is not known.
        DataError: results can't be read or are of other photos.
        RunError: the study has no finished run.
    """
    runs = [run for run in read_runs(study) if run.state == "done" and not run.guest]
    for guest in guests:
        _require_known(guest, {run.method for run in runs})
    if not runs:
        raise RunError(f"{study}: no finished run in it, whose test split guests could be scored on")
    footings = Counter(run.keys["footing"].key for run in runs if "footing" in run.keys)
    most = max(footings, key=footings.__getitem__, default=None)
    host = next(run for run in runs if most is None or ("footing" in run.keys and run.keys["footing"].key == most))
    cfg = RunFolder(host.folder).read_config()
    data = build_data(cfg)
    truth = GroundTruth(data.annotations("test"), data.image_ids("test"))
    return [_seat(study, guest, data, truth, cfg.evaluation) for guest in guests]


def _require_known(guest: Any, taken: Collection[str]) -> None:
    known = isinstance(guest, Mapping) and set(guest) <= set(KEYS) and guest.get("predictions")
    if not known or not re.fullmatch(r"[\w.+-]+", str(guest.get("name") or "")):
        raise ConfigError(
            f"guests has {guest}: expected a list of {{name: WORD, predictions: FILE}} and, if it is known, speed: FPS"
        )
    name, speed = guest["name"], guest.get("speed")
    if name in taken:
        raise ConfigError(f"guests: {name} is a method of this study; give the guest a name of its own")
    if speed is not None and not (isinstance(speed, int | float) and speed > 0):
        raise ConfigError(f"guests: {name} has speed={speed!r}; expected images a second, or no speed at all")


def _seat(
    study: Path, guest: Mapping[str, Any], data: CocoDataModule, truth: GroundTruth, evaluation: DictConfig
) -> Path:
    results = [_as_ours(truth, result, index) for index, result in enumerate(read_predictions(guest["predictions"]))]
    covered = len({result["image_id"] for result in results} & set(truth.images))
    if covered < len(truth.images):
        say(f"{guest['name']}: predictions for {covered} of {len(truth.images)} photos of test; none of the others")
    kinds: list[IouType] = list(dict.fromkeys(["segm", *evaluation.iou_types]))
    limit = evaluation.point.max_instances
    scores = {kind: score(truth, results, iou_type=kind, max_instances=limit, why=kind == "segm") for kind in kinds}
    content = hashlib.sha256(json.dumps(results).encode()).hexdigest()[:8]
    for earlier in (study / GUESTS).glob(f"{guest['name']}-seed0-????????"):
        shutil.rmtree(earlier)  # what it found before is not another seed of it
    run = RunFolder(study / GUESTS / trial_name(guest["name"], 0, content))
    write_matches(run.matches, scores["segm"].matches)
    write_thumbnails(run.thumbnails, data, results, scores["segm"].matches)
    if guest.get("speed") is not None:
        speed = float(guest["speed"])
        write_json(run.speed, {"fps": speed, "latency_ms": 1000 / speed, "device_name": "as it was told"})
    about = {
        "paradigm": "guest",
        "split": "test",
        "images": len(truth.images),
        "predictions": str(guest["predictions"]),
    }
    named = score(truth, with_true_classes(truth, results), iou_type="segm", max_instances=limit).summary
    write_json(run.metrics, {**about, **as_metrics(scores), "oracles": {"classes": named}})
    Status.begin(run.path).done().write(run.path)
    return run.path


def _as_ours(truth: GroundTruth, result: Result, index: int) -> Result:
    """A record as our own predictions have it: run lengths as text, and no `bbox`, which would tell the mask's area."""
    image_id = result["image_id"]
    if image_id not in truth.images or not result.get("segmentation"):
        return result  # scoring says what is wrong with it
    rle = truth.encode(result["segmentation"], image_id, f"record {index} (image {image_id})")
    counts = rle["counts"] if isinstance(rle["counts"], str) else rle["counts"].decode("ascii")
    box = result.get("box") or result.get("bbox") or rle_codec.toBbox(rle).tolist()
    kept: Result = {key: result[key] for key in ("image_id", "category_id", "score") if key in result}
    return {**kept, "segmentation": {"size": list(rle["size"]), "counts": counts}, "box": box}
