"""Weights that others published → ours.

`python -m maskbench.convert source=FILE layout=LAYOUT method=NAME out=FILE.safetensors`
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError, WeightsError
from maskbench.runtime import verb
from maskbench.runtime.console import say
from maskbench.runtime.values import require

VALUES: dict[str, Any] = {
    **dict.fromkeys(("source", "layout", "out"), str),
    **dict.fromkeys(("short", "long"), int),
    "style": str | None,
    "classes": Sequence[str] | None,
    "allow": Sequence[str],
}


def convert(cfg: DictConfig) -> dict[str, Any]:
    """Write the converted weights with what it takes to use them; every weight of the source is accounted for."""
    require(cfg, VALUES)
    out = Path(cfg.out).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"out={cfg.out}: expected a name that ends in .safetensors")
    from dataclasses import replace

    from maskbench.weights.converting import publish
    from maskbench.weights.file import save
    from maskbench.weights.reading import read

    given = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    source = read(cfg.source)
    chosen = {name: given[name] for name in ("layout", "style", "allow")}
    settings = given.get("method") or {}
    method = _stem(settings.pop("_target_")) if settings else "backbone"
    classes = given["classes"] or source.classes
    try:
        published = publish(source.weights, method=method, settings=settings, classes=classes, **chosen)
    except WeightsError as error:
        raise WeightsError(f"{cfg.source}: {error}") from None
    save(replace(published, size=(cfg.short, cfg.long)), out)
    for name in published.left_out:
        say(f"left out: {name}")
    use = "train backbone.weights=" if published.method is None else "predict images=PHOTOS weights="
    say(f"{len(published.weights)} weights are in {out}: maskbench {use}{shlex.quote(str(out))}")
    return {
        "out": str(out),
        "weights": len(published.weights),
        "classes": len(published.classes),
        "left_out": list(published.left_out),
        "method": published.method,
        "backbone": published.backbone,
    }


def _stem(target: str) -> str:
    """Of a method of ours, by its class."""
    room, _, stem = target.rpartition(".")[0].rpartition(".")
    if room != "maskbench.methods":
        raise ConfigError(
            f"method._target_={target}: how weights of others are named is known for our own methods alone"
        )
    return stem


def main() -> None:
    verb.run("convert", convert)


if __name__ == "__main__":
    main()
