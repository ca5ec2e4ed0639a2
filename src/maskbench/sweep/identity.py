"""Who a trial is: the settings that change its results, its name, and what its results may be compared with."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RESULT_VERSION = 10
"""Raised when the same settings and data begin to give other results, so that old and new runs never mix."""

WITHOUT_EFFECT: dict[str, str] = {
    "checkpoint_minutes": "how much of a run is lost when it is cut",
    "data.root": "where the data lie; what they are is the fingerprint",
    "data.unreadable": "whether a photo that can't be read ends a training; the run says if any was skipped",
    "data.workers": "draws are seeded by (seed, epoch, index), whichever process makes them",
    "evaluation.iou_types": "what of the predictions is measured; they stay as they are",
    "experiment": "the recipe's name; what it says stands in the other groups",
    "hydra": "how the trial was started",
    "logger": "who is told",
    "method_name": "the method's label; what it is stands in the group method",
    "out_of_memory": "what the next attempt does; the run says when it did",
    "preflight": "whether somebody looked at the data before",
    "runs": "where results lie",
    "speed": "the stopwatch comes after training and evaluation",
    "study": "which folder the trial belongs to",
    "threads": "how fast it is computed: the environment key",
    "weights.file": "where they lie; what they are is weights.content",
    "trainer.accelerator": "where it is computed: the environment key",
    "trainer.enable_model_summary": "what is shown",
    "trainer.log_every_n_steps": "what is shown",
    "trainer.num_sanity_val_steps": "a look at the loader before training begins",
    "trainer.profiler": "what is shown",
}
"""Settings, by dotted path, that leave weights and AP as they are, each with its reason.

Whatever is not named here counts: a new setting makes new trials until somebody has argued that it changes nothing.
So do `trainer.devices` and `trainer.strategy`, although `data.batch` is the global batch: the statistics of batch
normalisation and what a loss is divided by (positives, pixels) are those of one device's share.
"""

UNSET: dict[str, Any] = {"data.test_share": None, "data.group_by": None, "data.eval_limit": None}
"""Settings that came after the first trials of this version, and the value at which results are as before.

Left there, a setting is left out, so that those trials keep their names.
"""

OWN = ("method", "seed")
"""What trials of one footing may differ in."""

OPERATING_POINT = ("evaluation", "transforms.eval", "trainer.precision")
"""Where a trained network is read: input size, thresholds, instance limit, precision."""


class TrialName(NamedTuple):
    """The parts of a run folder's name."""

    method: str
    seed: int
    hash: str


def canonical(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved config changes results; equal values are spelled alike (1.0 is 1, tuples are lists)."""
    return _without(cfg, WITHOUT_EFFECT)


def trial_hash(cfg: Mapping[str, Any], fingerprint: str) -> str:
    """Eight hex digits of the canonical config, the data's fingerprint and `RESULT_VERSION`."""
    return _digest({"config": canonical(cfg), "data": fingerprint, "version": RESULT_VERSION}, 8)


def method_name(choice: str) -> str:
    """The choice of the group `method` as a word of a folder's name: `small/solov2` → `solov2-small`."""
    *variants, stem = choice.split("/")
    return "-".join([stem, *reversed(variants)])


def trial_name(method: str, seed: int, hash: str) -> str:
    """The run folder's name, METHOD-seedS-HASH8."""
    return f"{method}-seed{seed}-{hash}"


def parse_trial_name(name: str) -> TrialName | None:
    """The inverse of `trial_name`; None for a folder that is no run's."""
    match = re.fullmatch(r"(?P<method>.+)-seed(?P<seed>\d+)-(?P<hash>[0-9a-f]{8})", name)
    return TrialName(match["method"], int(match["seed"]), match["hash"]) if match else None


def fairness(cfg: Mapping[str, Any], fingerprint: str, environment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The content of fairness.json: four keys, each with the fields it is the hash of.

    Every setting that changes results stands in exactly one place: `method` has the method's own settings, the
    operating point is where its output is read, and all the rest but the seed is the footing, so nothing can differ
    unseen. Trials that share the first three are seeds of one row.

    Args:
        cfg: the resolved config.
        fingerprint: of the data's content.
        environment: device, driver, threads, library versions, code commit.
    """
    settings = _flatten(canonical(cfg))
    method = {name: value for name, value in settings.items() if _inside(name, ("method",))}
    point = {name: value for name, value in settings.items() if _inside(name, OPERATING_POINT)}
    footing = {name: value for name, value in settings.items() if not _inside(name, (*OPERATING_POINT, *OWN))}
    footing |= {"data.fingerprint": fingerprint, "result_version": RESULT_VERSION}
    return {
        "footing": _keyed(footing),
        "operating_point": _keyed(point),
        "method": _keyed(method),
        "environment": _keyed(_flatten(_plain(environment))),
    }


def wandb_id(study: str, name: str) -> str:
    """The id of a W&B run: the same name in another study is another run. Made of what W&B allows."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", f"{study}-{name}")


def _without(node: Mapping[str, Any], paths: Mapping[str, str], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in node.items():
        path = f"{prefix}{name}"
        if path in paths or (path in UNSET and value == UNSET[path]):
            continue
        kept[str(name)] = _without(value, paths, f"{path}.") if isinstance(value, Mapping) else _plain(value)
    return kept


def _plain(value: Any) -> Any:
    """JSON's own types, one spelling for equal values."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted path; an empty group is a value."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        path = f"{prefix}{name}"
        flat |= _flatten(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat


def _inside(path: str, groups: Sequence[str]) -> bool:
    return any(path == group or path.startswith(f"{group}.") for group in groups)


def _keyed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": _digest(fields, 10), "fields": dict(sorted(fields.items()))}


def _digest(value: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
