"""Weights that others trained, converted: where a verb takes a run, it takes a file of them or a name."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from maskbench.data.datamodule import CocoDataModule
from maskbench.data.layouts import find_test
from maskbench.errors import ConfigError, DataError, WeightsError
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import build_data, make
from maskbench.runtime.console import say
from maskbench.runtime.run_folder import Trained
from maskbench.runtime.trial import data_root
from maskbench.weights.converting import Published
from maskbench.weights.fetching import fetch
from maskbench.weights.file import load
from maskbench.weights.fitting import fit, start

ROOMS = ("data", "transforms", "evaluation")
"""Config groups that say what weights are held against; a run's folder has them, a file of weights has not."""


def find(weights: str) -> Published:
    """The converted weights of a file, or of a name that somebody published.

    Raises:
        WeightsError: as in `file.load` and `fetching.fetch`.
    """
    path = Path(weights).expanduser()
    return fetch(weights) if weights.startswith("torchvision/") and not path.exists() else load(path)


def load_weights(weights: str) -> Trained:
    """The method of a converted checkpoint with its weights, and the settings it predicts with: its paper's.

    Raises:
        WeightsError: there is no such file, or it holds no whole method.
    """
    published = find(weights)
    if published.method is None:
        raise WeightsError(f"{weights}: holds a backbone alone; train a method on it with backbone.weights={weights}")
    method: Segmenter = make(published.method, backbone=make(published.backbone), classes=published.classes)
    try:
        fit(method, published.weights)
    except WeightsError as error:
        raise WeightsError(f"{weights}: {error}") from None
    return Trained(_settings(published), method.eval(), published.category_ids)


def _settings(published: Published) -> DictConfig:
    """What a run's config would say."""
    short, long = published.size
    return OmegaConf.create(
        {
            "seed": 0,
            "data": {"divisor": 32},
            "transforms": {
                "_target_": "maskbench.data.transforms.Transforms",
                "eval": {"_target_": "maskbench.data.transforms.Eval", "short": short, "long": long},
            },
            "evaluation": {"point": None, "iou_types": ["segm", "bbox", "boundary"]},
            "trainer": {"_target_": "lightning.Trainer", "precision": "32-true", "enable_model_summary": False},
        }
    )


def with_data(weights: str, chosen: DictConfig) -> tuple[Trained, CocoDataModule]:
    """A converted checkpoint and the data set it is held against, whose test split alone is read.

    Args:
        weights: a file or a name.
        chosen: the verb's config with the group `data`, and with `transforms` and `evaluation` where the checkpoint's
            own are not meant.

    Raises:
        ConfigError: no data are chosen.
        DataError: they have other classes.
    """
    if chosen.get("data") is None:
        raise ConfigError(f"weights={weights} are held against data: say data=coco data.root=PATH, or another set")
    trained = load_weights(weights)
    cfg = trained.cfg
    settings = OmegaConf.to_container(chosen, resolve=True)
    assert isinstance(settings, dict)
    for name in ROOMS:
        if settings.get(name) is not None:
            cfg[name] = settings[name]
    cfg.data.update(find_test(data_root(cfg.data), cfg.data).settings())
    cfg.data.tune_share = 0.0
    if cfg.evaluation.point is not None:
        trained.method.point = make(cfg.evaluation.point)
    data = build_data(cfg)
    if tuple(data.classes) != trained.method.classes:
        raise DataError(
            f"{data.annotations('test')}: has the classes {_short(data.classes)}, but {weights} knows "
            f"{_short(trained.method.classes)}; both need the same names in the same order"
        )
    return trained, data


def _short(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" … ({len(names)})" if len(names) > 5 else "")


def begin(method: Segmenter, weights: str) -> None:
    """Let a method that is about to be trained start from a converted checkpoint; says what was left out."""
    try:
        left_out = start(method, find(weights))
    except WeightsError as error:
        raise WeightsError(f"weights={weights}: {error}") from None
    if left_out:
        say(f"{weights} knows another number of classes: {', '.join(left_out)} start anew")
