"""COCO's numbers of a run, of converted weights or of a file of predictions.

`python -m maskbench.evaluate run=DIR`, `weights=FILE data=coco data.root=PATH` or `predictions=FILE annotations=FILE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from maskbench.errors import ConfigError
from maskbench.evaluation.counting import counting
from maskbench.evaluation.deployment import tally
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import Matches
from maskbench.evaluation.overlaps import IouType
from maskbench.evaluation.results import Result, read_predictions
from maskbench.evaluation.scoring import Scores, as_metrics, score
from maskbench.runtime import verb
from maskbench.runtime.console import say, show_counts, show_kept, show_scores
from maskbench.runtime.values import require, require_one

OF_PREDICTIONS = ("annotations", "iou_type", "max_instances", "threshold")
OF_WEIGHTS = ("data", "transforms", "evaluation")
"""Settings of one thing to evaluate alone."""
SILENT = 0.1
"""Share of the photos with objects that may have no prediction before it is told."""
VALUES: dict[str, Any] = {
    **dict.fromkeys(("run", "weights", "predictions", "annotations", "device"), str | None),
    "iou_type": IouType | None,
    "predict": bool,
    "out": str,
    "max_instances": int | None,
    "threshold": float | None,
}
WAYS = {
    "run": "run=DIR",
    "weights": "weights=FILE data=...",
    "predictions": "predictions=FILE annotations=FILE",
}


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """AP and AR, by class, and why AP is lost: of a results file, a run or weights; the latter two keep it as well."""
    require(cfg, VALUES)
    chosen = require_one(cfg, WAYS, "evaluate")
    if chosen == "weights":
        _refuse(cfg, OF_PREDICTIONS, "predictions=FILE", f"weights={cfg.weights} are held against data=...")
        from maskbench.runtime.judging import judge_weights

        numbers = judge_weights(cfg.weights, cfg, Path(cfg.out), device=cfg.device)
        show_scores(Path(cfg.weights).name, numbers)
        return {"weights": cfg.weights, "out": cfg.out, **numbers}
    if chosen == "run":
        _refuse(cfg, OF_PREDICTIONS, "predictions=FILE", f"run={cfg.run} is evaluated as its own config says")
        _refuse(cfg, OF_WEIGHTS, "weights=FILE", f"run={cfg.run} is evaluated as its own config says")
        if cfg.device is not None and not cfg.predict:
            raise ConfigError(f"device={cfg.device} belongs to predict=true: predictions are scored on the CPU")
        from maskbench.runtime.judging import judge_again

        numbers = judge_again(Path(cfg.run), predict=cfg.predict, device=cfg.device)
        show_scores(cfg.run, numbers)
        return {"run": cfg.run, **numbers}
    return _evaluate_file(cfg)


def _evaluate_file(cfg: DictConfig) -> dict[str, Any]:
    for name in ("predict", "device"):
        if cfg[name]:
            raise ConfigError(
                f"{name}={cfg[name]} belongs to run=DIR, whose weights predict anew; predictions={cfg.predictions} is "
                "scored as it is"
            )
    _refuse(cfg, OF_WEIGHTS, "weights=FILE", f"predictions={cfg.predictions} are scored as they are")
    if cfg.annotations is None:
        raise ConfigError(f"predictions={cfg.predictions} needs the annotations=FILE that it is scored against")
    iou_type: IouType = cfg.iou_type or "segm"
    results, truth = read_predictions(cfg.predictions), GroundTruth(cfg.annotations)
    scores = score(truth, results, iou_type=iou_type, max_instances=cfg.max_instances, why=iou_type == "segm")
    numbers = as_metrics({iou_type: scores})
    show_scores(Path(cfg.predictions).name, numbers)
    _tell_of_silence(scores.matches)
    reasons: dict[str, Any] = {name: numbers[name][iou_type] for name in ("errors", "strata") if name in numbers}
    kept = {} if cfg.threshold is None else {"at_threshold": _at_threshold(cfg, truth, results, scores, iou_type)}
    return {"iou_type": iou_type, **scores.summary, "per_class": scores.per_class, **kept, **reasons}


def _tell_of_silence(matches: Matches) -> None:
    """Say so where whoever predicted may not have been asked for all photos."""
    asked = np.unique(matches.truth_image)
    silent = len(np.setdiff1d(asked, matches.image))
    if silent > SILENT * len(asked):
        say(
            f"{silent} of {len(asked)} photos with objects have no prediction, and their objects count as missed: if "
            "these photos were not asked for, score against an annotation file without them"
        )


def _at_threshold(
    cfg: DictConfig, truth: GroundTruth, results: Sequence[Result], scores: Scores, iou_type: IouType
) -> dict[str, Any]:
    """What the results that score enough are worth; masks are counted, too."""
    kept = asdict(tally(scores.matches, cfg.threshold))
    title = f"{kept['detections']} of {len(results)} score {cfg.threshold} or more"
    show_kept(title, {iou_type: kept})
    if iou_type == "segm":
        kept["counting"] = asdict(counting(truth, results, cfg.threshold, max_instances=cfg.max_instances))
        show_counts(title, kept["counting"])
    return kept


def _refuse(cfg: DictConfig, names: Sequence[str], owner: str, instead: str) -> None:
    """Raise where one is set that belongs to something else."""
    for name in names:
        if cfg.get(name) is not None:
            told = name if isinstance(cfg[name], DictConfig) else f"{name}={cfg[name]}"
            raise ConfigError(f"{told} belongs to {owner}; {instead}")


def main() -> None:
    verb.run("evaluate", evaluate)


if __name__ == "__main__":
    main()
