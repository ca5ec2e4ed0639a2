"""W&B: one run a trial, offline unless told otherwise, with the photos of tune as they are segmented."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from jaxtyping import UInt8
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from numpy import ndarray
from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import writing
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.photos import read_photo
from maskbench.errors import ConfigError, DashboardError
from maskbench.methods.base import Segmenter
from maskbench.runtime.compose import make
from maskbench.runtime.run_folder import RunFolder, read_json
from maskbench.runtime.trial import Composed
from maskbench.structures import Batch, Frame, Instances
from maskbench.sweep.identity import wandb_id


def build_logger(trial: Composed, method: Segmenter) -> WandbLogger | None:
    """The W&B run of a trial, in its study's folder; None for logger=none."""
    cfg, run = trial.cfg, trial.folder
    if not cfg.logger:
        return None
    experiment = _open(cfg, run, tags=[method.paradigm, trial.data_name, cfg.backbone.name])
    experiment.define_metric("trainer/global_step")
    experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=experiment, save_dir=str(run.parent))


def log_again(run: RunFolder) -> None:
    """Tell the W&B run of a finished trial what its folder says now, as after it was timed; nothing for logger=none."""
    cfg = run.read_config()
    if cfg.logger:
        with _open(cfg, run.path) as experiment:
            summarise(experiment, run)


def _open(cfg: DictConfig, run: Path, **settings: Any) -> wandb.Run:
    """The W&B run of the trial in a folder, new or gone on with."""
    with writing(run):
        run.parent.mkdir(parents=True, exist_ok=True)
    with telling():
        return make(
            cfg.logger,
            name=run.name,
            id=wandb_id(cfg.study, run.name),
            dir=str(run.parent),
            group=cfg.study,
            job_type=cfg.method_name,
            config=OmegaConf.to_container(cfg),
            # an offline run can't look for the one it goes on with; `wandb sync` joins both by their id
            resume=None if cfg.logger.mode == "offline" else "allow",
            **settings,
        )


@contextmanager
def telling() -> Iterator[None]:
    """W&B's errors as ours.

    Raises:
        ConfigError: it does not know who logs, or does not take a setting.
        DashboardError: it can't be reached.
    """
    try:
        yield
    except wandb.errors.CommError as error:
        down = DashboardError(
            f"W&B can't be reached or lets nobody in ({str(error).strip()}): log in (`wandb login`), or leave "
            "logger.mode=offline and send the run afterwards (`wandb sync`)"
        )
        down.again = "maybe"
        raise down from error
    except wandb.errors.Error as error:
        raise ConfigError(
            f"logger: W&B says: {str(error).strip()} Log in (`wandb login`, or WANDB_API_KEY), or leave "
            "logger.mode=offline and send the run afterwards (`wandb sync`)"
        ) from error


def require_login(logger: DictConfig | None) -> None:
    """Raise as `telling` does unless W&B knows who logs, where runs are logged live; on a terminal it asks."""
    if logger and logger.get("mode") == "online":
        with telling():
            wandb.login()


class TuneOverlays(Callback):
    """Logs the first photos of tune with their predicted masks after every validation.

    Args:
        data: the data set.
        count: photos.
    """

    def __init__(self, data: CocoDataModule, count: int = 4) -> None:
        self.data = data
        self.names = {0: "background", **{label + 1: name for label, name in enumerate(data.classes)}}
        self.count = count
        self._found: list[tuple[Instances, Frame]] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._found = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        room = self.count - len(self._found)
        self._found += list(zip(outputs, batch.frames, strict=True))[:room]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(trainer.logger, WandbLogger) or not trainer.is_global_zero:
            return
        photos = [read_photo(self.data.image_path("tune", frame.image_id)) for _, frame in self._found]
        masks = [
            {"prediction": {"mask_data": class_map(instances), "class_labels": self.names}}
            for instances, _ in self._found
        ]
        captions = [str(frame.image_id) for _, frame in self._found]
        trainer.logger.log_image("tune/photos", photos, step=trainer.global_step, masks=masks, caption=captions)


def class_map(instances: Instances, score: float = 0.3) -> UInt8[ndarray, "H W"]:
    """Label + 1 of the best instance on each pixel, 0 where there is none with at least `score`."""
    painted = np.zeros(instances.masks.size, dtype=np.uint8)
    for row in reversed(range(int((instances.scores >= score).sum()))):
        mask = instances.masks[row : row + 1].dense()[0].cpu().numpy()
        painted[mask] = min(255, int(instances.labels[row]) + 1)
    return painted


def end_curve(logger: WandbLogger, metrics: Mapping[str, Any], step: int) -> None:
    """Log AP on tune of the weights that are judged, where they are those that training ends with.

    The last epoch may have had no validation, and then nothing else says where the curve ends.
    """
    tune = metrics.get("tune", {}).get("segm")
    if tune and metrics["checkpoint"] == "last":
        taken = {"images": metrics["images_seen"], "hours": metrics["minutes"] / 60}
        logger.log_metrics({"tune/AP": tune["AP"], "tune/AP50": tune["AP50"], **taken}, step)


def summarise(experiment: wandb.Run, run: RunFolder) -> None:
    """The numbers of a finished run's folder as the summary of its W&B run, as far as there are such objects."""
    metrics = read_json(run.metrics)
    summary = {
        f"test/{kind}/{name}": value
        for kind in ("segm", "bbox")
        for name, value in metrics.get(kind, {}).items()
        if value >= 0  # COCO writes −1 where there is nothing to find
    }
    summary |= {name: metrics[name] for name in ("epochs", "images_seen", "minutes")}
    speed = read_json(run.speed) if run.speed.exists() else {}
    summary |= {f"speed/{name}": value for name, value in speed.items() if isinstance(value, int | float)}
    experiment.summary.update(summary)
