"""What can be wrong with the settings of a training, told before its network is built and its data are loaded.

A run of its own that is the first of its kind is rehearsed before its data are looked at and its folder is made. Trials
of a sweep, runs that may be done and what is fitted to the data are rehearsed in the folder, where the reason is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from maskbench.errors import ConfigError, MaskbenchError
from maskbench.evaluation.overlaps import IouType
from maskbench.evaluation.precision import precision_name
from maskbench.runtime.checkpoints import BEST, chosen
from maskbench.runtime.compose import make, make_method, make_trainer
from maskbench.runtime.media import require_login
from maskbench.runtime.memory import Choice
from maskbench.runtime.plan import require_budget
from maskbench.runtime.progress import shown
from maskbench.runtime.quiet import hush
from maskbench.runtime.ranks import require_one_node
from maskbench.runtime.signatures import require_signatures
from maskbench.runtime.values import require

VALUES: dict[str, Any] = {
    "study": str,
    "runs": str,
    "seed": int,
    "weights": str | None,
    "checkpoint": str,
    "checkpoint_minutes": float | None,
    "out_of_memory": Choice,
    "threads": int | None,
    "speed.enabled": bool,
    "speed.images": int,
    "protocol.name": str,
    "protocol.share": float,
    "protocol.lr_factors": Sequence[float],
    "protocol.tuning_share": float,
    "protocol.tflops": float | None,
    "protocol.minutes": float | None,
    "evaluation.iou_types": Sequence[IouType],
}
"""Settings that are handed to nothing whose signature would say what they are."""

SEEDS = 2**32
"""Numbers that NumPy takes for a seed, from 0 on."""


def rehearse(cfg: DictConfig) -> None:
    """Look at all settings, and build all that they make on a device without memory.

    Raises:
        ConfigError: something does not exist, can't be taken, or contradicts something else.
    """
    hush()
    require(cfg, VALUES)
    require_signatures(cfg)
    _require_ranges(cfg)
    require_one_node(cfg.trainer)  # as `identify` does, which a first run comes to only after this
    require_budget(cfg.protocol, cfg.trainer)
    if chosen(cfg.checkpoint) == BEST and cfg.protocol.tflops is None and cfg.protocol.minutes is None:
        require_validation(cfg)
    precision_name(cfg.trainer.precision)
    _build(cfg)
    require_login(cfg.logger)


def _require_ranges(cfg: DictConfig) -> None:
    if not cfg.evaluation.iou_types:
        raise ConfigError(f"evaluation.iou_types=[]: expected one or more of {', '.join(get_args(IouType))}")
    if not 0 <= cfg.seed < SEEDS:
        raise ConfigError(f"seed={cfg.seed}: expected 0 to {SEEDS - 1}")
    trainer = cfg.trainer
    if (trainer.get("max_epochs") or 0) < 0 and (trainer.get("max_steps") or -1) < 1:
        raise ConfigError(f"trainer.max_epochs={trainer.max_epochs}: a learning-rate schedule has to know its end")
    if (every := trainer.get("check_val_every_n_epoch")) is not None and every < 1:
        raise ConfigError(f"trainer.check_val_every_n_epoch={every}: expected 1 or more")
    if cfg.threads is not None and cfg.threads < 1:
        raise ConfigError(f"threads={cfg.threads}: expected 1 or more, or null")
    if cfg.checkpoint_minutes is not None and cfg.checkpoint_minutes < 0:
        raise ConfigError(f"checkpoint_minutes={cfg.checkpoint_minutes}: expected 0 or more, or null")
    if cfg.speed.enabled and cfg.speed.images < 1:
        raise ConfigError(
            f"speed.images={cfg.speed.images}: expected at least 1 (speed.enabled=false leaves the stopwatch out)"
        )


def require_validation(cfg: DictConfig) -> None:
    """Raise unless an epoch of the plan is validated."""
    epochs, every = (cfg.trainer.get(name) or 0 for name in ("max_epochs", "check_val_every_n_epoch"))
    if 0 < epochs < every:
        raise ConfigError(
            "checkpoint=best chooses weights by their AP on tune, but with "
            f"trainer.check_val_every_n_epoch={every} none of {epochs} epochs has one: set it to {epochs} or less, or "
            "take checkpoint=last"
        )


# Building -------------------------------------------------------------------------------------------------------------


class _Unbuilt(Exception):
    """What a constructor raised that knows nothing of settings."""


def _build(cfg: DictConfig) -> None:
    """Make every part once, and forget it: first without memory, and where that fails, as it will be made."""
    try:
        with torch.device("meta"):
            _make_all(cfg)
    except _Unbuilt:  # a method of others may ask for values, which that device has none of
        try:
            _make_all(cfg)
        except _Unbuilt as error:
            raise ConfigError(str(error)) from error.__cause__


def _make_all(cfg: DictConfig) -> None:
    data = {name: value for name, value in cfg.data.items() if name != "root"}  # where they lie is told when it is read
    with _blamed("transforms"):
        transforms = make(cfg.transforms)
    with _blamed("data"):
        make(data, root=".", transforms=transforms, seed=cfg.seed)
    with _blamed("evaluation.point"):
        point = make(cfg.evaluation.point)
    with _blamed("backbone"):
        backbone = make({**cfg.backbone, "weights": "scratch"})
        if cfg.data.divisor % (coarsest := max(backbone.strides)):
            raise ConfigError(
                f"data.divisor={cfg.data.divisor}: expected a multiple of the coarsest stride, {coarsest}"
            )
    with _blamed("optim"):
        optim = make(cfg.optim)
    with _blamed("method"):
        method = make_method(cfg.method, backbone=backbone, classes=("object",), optim=optim, point=point)
    with _blamed("optim"):
        optim(method, 2)
        _ = [optim.curve(done) for done in (0.0, 0.5, 1.0)]
    make_trainer(cfg.trainer, logger=False, enable_checkpointing=False, default_root_dir=".", **shown())


@contextmanager
def _blamed(group: str) -> Iterator[None]:
    """Whatever a constructor raises is said of the settings that it was given, with its place."""
    try:
        yield
    except MaskbenchError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        raise _Unbuilt(f"{group}: nothing can be made of these settings ({_placed(cause)})") from error


def _placed(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
    return f"{type(error).__name__}{place}: {error}"
