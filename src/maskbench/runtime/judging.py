"""A trained method before the test split: its AP, its ceiling, its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from maskbench.data.datamodule import CocoDataModule
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.counting import Counting, counting
from maskbench.evaluation.deployment import best_threshold, tally
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import Matches, write_matches
from maskbench.evaluation.oracles import with_true_classes
from maskbench.evaluation.overlaps import IouType
from maskbench.evaluation.reach import Reach
from maskbench.evaluation.results import Result, read_predictions, write_predictions
from maskbench.evaluation.scoring import as_metrics, score
from maskbench.evaluation.semantic_quality import SemanticQuality
from maskbench.methods.base import Oracle, Segmenter
from maskbench.runtime.compose import build_data, make_trainer
from maskbench.runtime.interrupts import interruptible
from maskbench.runtime.pictures import write_thumbnails
from maskbench.runtime.progress import shown
from maskbench.runtime.published import with_data
from maskbench.runtime.quiet import hush
from maskbench.runtime.run_folder import RunFolder, load, read_json, require_same_data, write_json
from maskbench.runtime.timing import on_one, pick_device
from maskbench.runtime.trial import alone, taken
from maskbench.runtime.tuning import TuneAP
from maskbench.structures import Batch

SCORES = (*get_args(IouType), "per_class", "errors", "strata", "deployment")
"""What a new look at the predictions replaces in metrics.json."""


class Judgement(Callback):
    """Collects what a method predicts on test, what it would with the help of oracles and at its ceiling, and how far
    the true objects come through its stages.

    Args:
        data: the data set.
        oracles: the method's.
        max_instances: the best of an image that count.

    Attributes:
        truth: of test, read once for all of them: its masks take time and memory.
    """

    def __init__(self, data: CocoDataModule, oracles: Sequence[Oracle], max_instances: int) -> None:
        self.truth = GroundTruth(data.annotations("test"), data.image_ids("test"))

        def ap() -> AveragePrecision:
            return AveragePrecision(self.truth, data.category_ids, iou_types=("segm",), max_instances=max_instances)

        self.found, self.ceiling, self.given = ap(), ap(), {oracle: ap() for oracle in oracles}
        self.reach, self.semantic = Reach(), SemanticQuality(data.classes)

    def helped(self) -> dict[str, dict[str, float]]:
        """Mask AP by what was given; to be called on every rank."""
        return {oracle: found.compute()["segm"] for oracle, found in self.given.items()}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert isinstance(pl_module, Segmenter)
        self.found.update(outputs.instances, batch.frames)
        self.reach.update(outputs.reach, batch.frames)
        self.semantic.update(outputs.semantic_areas, batch.frames)
        for oracle, instances in outputs.given.items():
            self.given[oracle].update(instances, batch.frames)
        self.ceiling.update(pl_module.ceiling(batch), batch.frames)


def judge(
    cfg: DictConfig, method: Segmenter, data: CocoDataModule, run: RunFolder, *others: Callback
) -> dict[str, Any]:
    """Predict the tune and the test split as `cfg.trainer` says; writes predictions, matches and thumbnails of test.

    Args:
        cfg: the composed config.
        method: trained.
        data: the data set.
        run: where to write.
        others: who looks on while batches are predicted.

    Returns:
        The metrics on the first rank, which writes; nothing on others.
    """
    limit = method.point.max_instances
    judgement = Judgement(data, method.oracles, limit)
    choice = TuneAP(data, limit) if data.image_ids("tune") else None
    callbacks = shown(*others, judgement, *([choice] if choice else []))
    trainer = make_trainer(cfg.trainer, logger=False, enable_checkpointing=False, **callbacks)
    fitted: dict[str, Any] = {}
    with interruptible():
        if choice:
            fitted = _fitted(method, data, trainer, choice)
            trainer.validate(method, datamodule=data, verbose=False)
        trainer.test(method, datamodule=data, verbose=False)
    # all are gathered from every rank, so every rank asks
    results, ceiling = judgement.found.results(), judgement.ceiling.compute()["segm"]
    helped = judgement.helped()
    reach, tuned = judgement.reach.compute(), choice.scores() if choice else None
    semantic = judgement.semantic.compute()
    if not trainer.is_global_zero:
        return {}
    write_predictions(run.predictions, results)
    chosen = _chosen(tuned.matches) if tuned else None
    found = _judge_predictions(run, data, judgement.truth, results, cfg.evaluation.iou_types, limit, chosen)
    return {
        "split": "test",
        "images": len(data.image_ids("test")),
        **found,
        **({"tune": {"segm": tuned.summary}} if tuned else {}),
        **({"fitted": fitted} if fitted else {}),
        "oracles": found["oracles"] | helped,
        "ceiling": {"segm": ceiling},
        "reach": reach,
        **({"semantic": semantic} if semantic else {}),
    }


def _fitted(method: Segmenter, data: CocoDataModule, trainer: Trainer, tune: TuneAP) -> dict[str, Any]:
    """What the tune split chooses of the method's choices, which keeps it, and the AP of each value there."""
    found = {}
    for setting, values in method.choices.items():
        tried: dict[float, float] = {}
        for value in values:
            method.choose(setting, value)
            trainer.validate(method, datamodule=data, verbose=False)
            tried[value] = tune.ap.compute()["segm"]["AP"]
        best = max(values, key=tried.__getitem__)
        method.choose(setting, best)
        found[setting] = {"value": best, "tried": {f"{value:g}": ap for value, ap in tried.items()}}
    return found


def judge_again(path: Path, *, predict: bool, device: str | None = None) -> dict[str, Any]:
    """Score a finished run anew and write its metrics.json: from its predictions, or from its weights with `predict`.

    Args:
        path: the run folder.
        predict: make the predictions anew.
        device: where to make them, one device wherever the run was trained; a GPU where there is one when None.

    Returns:
        What metrics.json holds.

    Raises:
        RunError: the run is not finished, another process is at it, or its data are not what it was trained and judged
            on.
    """
    run = RunFolder.existing(path)
    with alone(run.path, partial(taken, run.path)):
        return _judge_again(run, predict=predict, device=device)


def _judge_again(run: RunFolder, *, predict: bool, device: str | None) -> dict[str, Any]:
    before = read_json(run.metrics)
    metrics = {name: value for name, value in before.items() if name not in SCORES}
    if predict:
        hush()
        target = pick_device(device)
        cfg, data, method = load(run.path)
        require_same_data(run, data)
        cfg.trainer = on_one(target, cfg.trainer)
        for chosen in ("tune", "fitted"):
            metrics.pop(chosen, None)
        metrics |= judge(cfg, method, data, run)
    else:
        cfg = run.read_config()
        data = build_data(cfg)
        require_same_data(run, data)
        truth, results = GroundTruth(data.annotations("test")), read_predictions(run.predictions)
        settings = cfg.evaluation
        how = (settings.iou_types, settings.point.max_instances, before.get("deployment"))
        metrics |= _judge_predictions(run, data, truth, results, *how)
        metrics["oracles"] = before.get("oracles", {}) | metrics["oracles"]
    write_json(run.metrics, metrics)
    return metrics


def judge_weights(weights: str, cfg: DictConfig, out: Path, *, device: str | None = None) -> dict[str, Any]:
    """Predict and score the test split of `cfg.data` with converted weights; writes metrics.json and predictions.

    Args:
        weights: a file or a published name.
        cfg: the verb's config, which says what they are held against.
        out: the folder.
        device: a GPU where there is one when None.

    Raises:
        ConfigError, DataError, WeightsError: as in `published.with_data`.
    """
    hush()
    target = pick_device(device)
    trained, data = with_data(weights, cfg)
    trained.cfg.trainer = on_one(target, trained.cfg.trainer)
    metrics = judge(trained.cfg, trained.method, data, RunFolder(out))
    write_json(RunFolder(out).metrics, metrics)
    return metrics


def _judge_predictions(
    run: RunFolder,
    data: CocoDataModule,
    truth: GroundTruth,
    results: Sequence[Result],
    iou_types: Sequence[IouType],
    max_instances: int,
    chosen: dict[str, Any] | None,
) -> dict[str, Any]:
    """All that follows from predictions on test, as metrics; writes matches and thumbnails.

    Matches are those of masks, which the leaderboard ranks by; where boxes alone are compared there are none.

    Args:
        run: the run folder.
        data: the data set.
        truth: of its test split.
        results: of the same.
        iou_types: what is compared.
        max_instances: the best of an image that count.
        chosen: the deployment point.
    """
    shared: dict[str, Any] = {"image_ids": data.image_ids("test"), "max_instances": max_instances}
    scores = {
        iou_type: score(truth, results, iou_type=iou_type, why=iou_type == "segm", **shared) for iou_type in iou_types
    }
    matches = scores["segm"].matches if "segm" in scores else None
    if matches:
        write_matches(run.matches, matches)
    else:
        run.matches.unlink(missing_ok=True)
    write_thumbnails(run.thumbnails, data, results, matches, chosen["threshold"] if chosen else None)
    # an oracle that every system can be asked
    named = score(truth, with_true_classes(truth, results), iou_type="segm", **shared).summary
    deployed = _deployment(chosen, matches, partial(counting, truth, results, **shared))
    return {**as_metrics(scores), **deployed, "oracles": {"classes": named}}


def _chosen(tuned: Matches) -> dict[str, Any] | None:
    """The deployment point by tune alone: the threshold of the best F1, and what it is worth there; None if nothing is
    found."""
    threshold = best_threshold(tuned)
    return None if threshold is None else {"threshold": threshold, "tune": asdict(tally(tuned, threshold))}


def _deployment(
    chosen: dict[str, Any] | None, matches: Matches | None, count: Callable[[float], Counting]
) -> dict[str, Any]:
    """The deployment point with what it is worth on test; nothing where none was chosen or no masks are scored."""
    if chosen is None or matches is None:
        return {}
    threshold = chosen["threshold"]
    kept = {**asdict(tally(matches, threshold)), "counting": asdict(count(threshold))}
    return {"deployment": {**chosen, "test": kept}}
