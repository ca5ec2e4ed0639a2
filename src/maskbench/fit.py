"""Settings that belong to a data set's scale, as a file to review.

`python -m maskbench.fit data=coco data.root=PATH method=NAME out=FOLDER/experiment/NAME.yaml`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maskbench.atomic import replace_text
from maskbench.errors import ConfigError, DataError
from maskbench.runtime import grid, launcher, nvidia, sweeper, verb
from maskbench.runtime.console import say
from maskbench.runtime.fitting import applied, as_yaml, said
from maskbench.runtime.trial import fitted_settings, located, profiled
from maskbench.runtime.values import require

GB = 10**9


def fit(cfg: DictConfig) -> dict[str, Any]:
    """Write what follows from the training file for one method, with the reasons, and say how it is used."""
    require(cfg, {"out": str, "memory_gb": float | None})
    if cfg.memory_gb is not None and cfg.memory_gb <= 0:
        raise ConfigError(f"memory_gb={cfg.memory_gb}: expected more than 0, or null for that of the smallest GPU here")
    out = Path(cfg.out).expanduser()
    if out.suffix != ".yaml" or out.parent.name != "experiment":
        raise ConfigError(f"out={cfg.out}: expected FOLDER/experiment/NAME.yaml, where train finds it as a recipe")
    if (verb.config_folder() / "experiment" / out.name).is_file():
        raise ConfigError(
            f"out={cfg.out}: {out.stem} is a recipe of maskbench's own, which train would take: choose another name"
        )
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    found = fitted_settings(cfg, overrides)
    learnt = located(cfg.data).places.train.annotations
    if not profiled(cfg.data).instances:
        raise DataError(f"{learnt}: has no object that settings could be fitted to")
    if not found:
        raise ConfigError("nothing is left to be fitted: the command line names every setting that would be")
    memory = cfg.memory_gb * GB if cfg.memory_gb is not None else nvidia.smallest_memory()
    if memory and cfg.trainer.accelerator != "cpu" and "data.batch" not in said(overrides):
        from maskbench.runtime.batch import fit_batch

        found = (*found, fit_batch(applied(cfg, found), memory))
    method = hydra.runtime.choices["method"]
    used = f"python -m maskbench.train --config-dir={out.parent.parent} experiment={out.stem} method={method}"
    head = [
        f"Fitted to {learnt} (train and tune, never test) for method={method}. Review it, then:",
        f"{used} ..., with the other words of the command line that wrote it.",
    ]
    replace_text(out, as_yaml(found, head))
    say(f"{len(found)} settings are in {out}, each with its reason: {used}")
    return {"out": str(out), "settings": {each.setting: each.value for each in found}}


def main() -> None:
    launcher.register()
    grid.register()
    sweeper.register()
    verb.run("fit", fit)


if __name__ == "__main__":
    main()
