"""What a search goes by: mask AP on the tune split after the last epoch, of `history.csv` alone.

A trial of a search is judged on test as every trial is, when its training is over; nothing here reads what was found.
It is the AP of the last epoch's weights, whatever `checkpoint` says.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from maskbench.errors import ConfigError, RunError
from maskbench.runtime.trial import parts_of, planned_epochs
from maskbench.sweep.watch import progress


def final_ap(folder: Path) -> float:
    """Mask AP on tune after the last epoch of a finished run, 0 to 1.

    Raises:
        RunError: the run has none.
    """
    history = folder / "history.csv"
    try:
        found = progress(folder)
    except OSError as error:
        raise RunError(f"{history}: can't be read ({error.strerror}); a search goes by AP on tune in it") from error
    if found is None or found.ap is None or found.ap_of != found.epochs:
        last = "none" if found is None or found.ap_of is None else f"the last of epoch {found.ap_of}"
        raise RunError(
            f"{history}: no AP on tune after epoch {found.epochs if found else 0} ({last}), and a search goes by that: "
            "the last epoch has to be validated (trainer.check_val_every_n_epoch)"
        )
    if found.ap < 0:  # as COCO writes it where there is nothing to find
        raise RunError(f"{history}: AP on tune is {found.ap:g}, so no object is in that split: raise data.tune_share")
    return found.ap


def require_tune(data: DictConfig) -> None:
    """Raise `ConfigError` where the tune split has no object to be found, as `CocoDataModule.objects` counts them."""
    tune = parts_of(data)["tune"]
    if not any(tune.file.counts(image)[0] for image in tune.image_ids):
        raise ConfigError(
            f"a search goes by AP on tune, but of the {len(tune.image_ids)} photos of that split none has an object: "
            f"set data.tune_share ({data.tune_share} now) higher or data.tune_annotations to a file with some"
        )


def require_last_validation(cfg: DictConfig) -> None:
    """Raise `ConfigError` where the settings say that the last epoch is not validated.

    A budget of operations or minutes is epochs only when the trial has measured them; then `final_ap` tells.
    """
    measured = cfg.protocol.tflops is not None or cfg.protocol.minutes is not None
    epochs, every = planned_epochs(cfg), cfg.trainer.get("check_val_every_n_epoch")
    if measured or (cfg.trainer.get("max_steps") or -1) > 0 or not epochs or not every:
        return
    if epochs % every:
        raise ConfigError(
            f"a search goes by AP on tune after the last epoch, but with trainer.check_val_every_n_epoch={every} the "
            f"last of {epochs} epochs has none: set it to {epochs} or to 1"
        )
