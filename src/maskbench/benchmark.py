"""Time finished runs, taking turns on the same photos: `python -m maskbench.benchmark run=DIR`, or `study=DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError
from maskbench.runtime import verb
from maskbench.runtime.console import percent, say, show
from maskbench.runtime.receipt import Receipt, read_by_stopwatch
from maskbench.runtime.values import require, require_one

if TYPE_CHECKING:
    from maskbench.runtime.timing import Conditions


VALUES: dict[str, Any] = {
    **dict.fromkeys(("run", "study", "weights", "device"), str | None),
    **dict.fromkeys(("threads", "images", "batch"), int),
    **dict.fromkeys(("again", "papers"), bool),
}
WAYS = {"run": "run=DIR", "study": "study=DIR", "weights": "weights=FILE data=..."}


def benchmark(cfg: DictConfig) -> dict[str, Any]:
    """Measure the run, or every finished run of the study, whose speed.json and W&B run get the numbers; or weights.

    What is timed in batches, recorded, compiled or at a precision that is asked for goes into speeds.json; with `sizes`
    or `papers` AP and speed at other input sizes or at the papers' thresholds go into points.json.
    """
    require(cfg, VALUES)
    chosen = require_one(cfg, WAYS, "time")
    if chosen != "weights" and (cfg.get("data") is not None or cfg.get("transforms") is not None):
        raise ConfigError("data and transforms belong to weights=FILE; runs are timed on the photos of their own data")
    settings = {name: cfg[name] for name in ("images", "threads", "batch", "execution", "precision")}
    receipt = _receipt(cfg, settings)
    if receipt and receipt.holds and not cfg.again:
        say(f"{cfg.study}: timed together already, and nothing has changed since; again=true times it again")
        return {"runs": {}}
    from maskbench.runtime.media import log_again
    from maskbench.runtime.run_folder import RunFolder
    from maskbench.runtime.timing import Conditions, finished_runs, pick_device, time_together, time_weights

    conditions = Conditions(pick_device(cfg.device), **settings)
    if cfg.sizes is not None or cfg.papers:
        return _at_points(cfg, conditions)
    if cfg.weights:
        speeds = time_weights(cfg.weights, cfg, conditions)
    else:
        runs = [Path(cfg.run)] if cfg.run else finished_runs(Path(cfg.study))
        speeds = time_together(runs, conditions)
        for run in runs if conditions.usual else ():
            if run.name in speeds:
                log_again(RunFolder(run))
    if receipt:
        receipt.write()
    numbers = {name: speed.as_dict() for name, speed in speeds.items()}
    rows = [
        [name, speed["precision"], f"{speed['latency_ms']:.1f}", f"{speed['p95_ms']:.1f}", f"{speed['fps']:.1f}"]
        for name, speed in numbers.items()
    ]
    title = f"speed, {conditions.batch} a batch, {conditions.execution}"
    show(title, ["run", "precision", "median ms", "p95 ms", "images/s"], rows)
    return {
        "runs": {name: {key: speed[key] for key in ("latency_ms", "p95_ms", "fps")} for name, speed in numbers.items()}
    }


def _receipt(cfg: DictConfig, settings: dict[str, Any]) -> Receipt | None:
    """Of the timing of a whole study under the leaderboard's conditions."""
    if cfg.study is None or not Path(cfg.study).is_dir() or cfg.sizes is not None or cfg.papers:
        return None
    study = Path(cfg.study)
    read = read_by_stopwatch(study)
    makes = [file.with_name("speed.json") for file in read if file.name == "config.yaml"]
    return Receipt(study / ".timed.json", read, makes, settings | {"device": cfg.device})


def _at_points(cfg: DictConfig, conditions: Conditions) -> dict[str, Any]:
    """AP and speed of runs at several input sizes or at their papers' thresholds, which go into their points.json."""
    from maskbench.runtime.points import read_as_published, read_at_sizes
    from maskbench.runtime.timing import finished_runs

    if cfg.weights or not conditions.usual:
        raise ConfigError(
            "sizes=... and papers=true read runs under the leaderboard's conditions: leave weights, batch, execution "
            "and precision out"
        )
    runs = [Path(cfg.run)] if cfg.run else finished_runs(Path(cfg.study))
    sizes = list(cfg.sizes) if OmegaConf.is_list(cfg.sizes) else [cfg.sizes]
    points = read_at_sizes(runs, sizes, conditions) if cfg.sizes is not None else {}
    points |= read_as_published(runs, conditions) if cfg.papers else {}
    rows = [
        [name, at, percent(point["AP"]), f"{point['fps']:.1f}", f"{point['latency_ms']:.1f}"]
        for name, own in points.items()
        for at, point in own.items()
    ]
    show("input sizes (short side) and papers' thresholds", ["run", "at", "AP", "FPS", "ms"], rows)
    return {"runs": points}


def main() -> None:
    verb.run("benchmark", benchmark)


if __name__ == "__main__":
    main()
