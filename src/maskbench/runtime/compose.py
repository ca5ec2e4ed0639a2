"""From a command line's words to a config, and from that to the data and the method.

Data come first, because only the annotations know the classes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from maskbench.data.datamodule import CocoDataModule
from maskbench.errors import ConfigError, MaskbenchError
from maskbench.methods.base import Segmenter
from maskbench.runtime.verb import config_folder

LOCATING = re.compile(r"Error locating target '([^']+)'")
"""What Hydra says of a class that it does not find."""


def composed(verb: str, words: Sequence[str]) -> DictConfig:
    """The config that a verb has with these words of a command line, where no command line has made one."""
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder())):
        return compose(verb, list(words))


def build(cfg: DictConfig) -> tuple[CocoDataModule, Segmenter]:
    """The data set, read, and the method, freshly initialised from `cfg.seed`."""
    data = build_data(cfg)
    return data, build_method(cfg, data.classes)


def build_data(cfg: DictConfig) -> CocoDataModule:
    """The data set of `cfg.data`, fetched or drawn if need be, and read."""
    data: CocoDataModule = make(cfg.data, transforms=make(cfg.transforms), seed=cfg.seed)
    data.prepare_data()
    data.setup("fit")
    return data


def build_method(cfg: DictConfig, classes: Sequence[str]) -> Segmenter:
    """The method on its backbone, as `make_method`, its weights drawn from `cfg.seed` alone."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    parts = {"optim": make(cfg.optim), "point": make(cfg.evaluation.point)}
    method = make_method(cfg.method, backbone=make(cfg.backbone), classes=tuple(classes), **parts)
    # Pooling and small convolutions run up to half faster with the channels last, on a CPU as on tensor cores.
    return method.to(memory_format=torch.channels_last)


def make_method(node: DictConfig, **parts: Any) -> Segmenter:
    """The method of `cfg.method` with its parts: backbone, classes, optim and point.

    Raises:
        ConfigError: that is no method, or as in `make`.
    """
    method = make(node, **parts)
    if not isinstance(method, Segmenter):
        raise ConfigError(
            f"method._target_={node['_target_']}: expected a maskbench.methods.base.Segmenter, and that makes a "
            f"{type(method).__name__}"
        )
    return method


def make(node: DictConfig | Mapping[str, Any], **given: Any) -> Any:
    """Call the `_target_` of a config node with its settings and with objects that no config can hold.

    Nested nodes are made first. An error of ours from inside one arrives as it was raised, not as Hydra wraps it.

    Raises:
        ConfigError: the config sets what is given, or names a class that is not there.
    """
    try:
        # as a partial: Hydra would copy what is given, weights and all, into its config
        made = instantiate(node, _partial_=True, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, MaskbenchError):
            raise error.__cause__ from None
        if isinstance(missing := _missing(error), ModuleNotFoundError):
            raise ConfigError(
                f"{LOCATING.findall(str(error))[0]}: not found ({missing}). Is its name right, and is its package "
                f"installed for {sys.executable}, or its folder in PYTHONPATH?"
            ) from error
        raise
    if both := sorted(made.keywords.keys() & given.keys()):
        raise ConfigError(
            f"{', '.join(both)} of {node['_target_']}: found in the config, but maskbench sets it itself; leave it out"
        )
    return made.func(**{name: _fixed(value) for name, value in made.keywords.items()}, **given)


def _missing(error: InstantiationException) -> BaseException | None:
    """What kept Hydra from finding a class, if that is what it complains of."""
    return error.__cause__ and error.__cause__.__cause__ if LOCATING.match(str(error)) else None


def make_trainer(node: DictConfig, **given: Any) -> Trainer:
    """Lightning's trainer with the settings of `trainer`.

    Raises:
        ConfigError: Lightning can't take them, or they set what is given.
    """
    try:
        return make(node, **given)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"trainer: Lightning can't take these settings: {error}") from error


def _fixed(value: Any) -> Any:
    """Lists as tuples, which is what signatures have for a setting of several numbers."""
    return tuple(map(_fixed, value)) if isinstance(value, list) else value
