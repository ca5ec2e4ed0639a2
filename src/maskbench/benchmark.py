"""Time finished runs, taking turns on the same photos: `python -m maskbench.benchmark run=DIR`, or `study=DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskbench.errors import ConfigError
from maskbench.runtime import verb
from maskbench.runtime.console import show


def benchmark(cfg: DictConfig) -> dict[str, Any]:
    """Measure the run, or every finished run of the study; each one's speed.json and W&B run get the numbers."""
    if (cfg.run is None) == (cfg.study is None):
        raise ConfigError("name what is to be timed: either run=DIR or study=DIR")
    from maskbench.runtime.media import log_again
    from maskbench.runtime.run_folder import RunFolder
    from maskbench.runtime.timing import finished_runs, pick_device, time_together

    runs = [Path(cfg.run)] if cfg.run else finished_runs(Path(cfg.study))
    speeds = time_together(runs, pick_device(cfg.device), images=cfg.images, threads=cfg.threads)
    for run in runs:
        log_again(RunFolder(run))
    numbers = {name: speed.as_dict() for name, speed in speeds.items()}
    rows = [
        [name, f"{speed['latency_ms']:.1f}", f"{speed['p95_ms']:.1f}", f"{speed['fps']:.1f}"]
        for name, speed in numbers.items()
    ]
    show("speed", ["run", "median ms", "p95 ms", "FPS"], rows)
    return {
        "runs": {name: {key: speed[key] for key in ("latency_ms", "p95_ms", "fps")} for name, speed in numbers.items()}
    }


def main() -> None:
    verb.run("benchmark", benchmark)


if __name__ == "__main__":
    main()
