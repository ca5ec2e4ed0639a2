"""A published checkpoint → our names, order and settings, every weight accounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maskbench.errors import ConfigError, WeightsError
from maskbench.nn.backbone import Backbone
from maskbench.weights.accounting import Account, class_heads, without
from maskbench.weights.architecture import BODY, METHODS, read_settings, resnet
from maskbench.weights.coco_names import COCO
from maskbench.weights.layouts.detectron2 import DETECTRON2
from maskbench.weights.layouts.layout import STYLES, Layout, Style
from maskbench.weights.layouts.mmdetection import MMDETECTION
from maskbench.weights.layouts.torchvision import TORCHVISION
from maskbench.weights.reading import unwrap
from maskbench.weights.renaming import rename_all

LAYOUTS: dict[str, Layout] = {"mmdetection": MMDETECTION, "detectron2": DETECTRON2, "torchvision": TORCHVISION}

ALLOWANCES = {
    "classes": "heads of another number of classes are left out",
    "unmatched": "weights that the network has no place for are left out",
}

OUR_EPS = 1e-5
"""What our batch normalisation adds to the variance."""

FROZEN_STAGES = 2
"""With which training goes on, as torchvision's does by default and as `conf/backbone/resnet50.yaml` has it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """A converted checkpoint and what it takes to use it.

    Args:
        weights: under our names; those of a backbone alone under timm's.
        backbone: its config.
        method: its config; None of a backbone alone.
        classes: names of the classes.
        category_ids: COCO's id of each.
        left_out: what was not taken over, by name.
        size: short side in pixels that photos are brought to, and the cap of their long side.
    """

    weights: dict[str, Tensor]
    backbone: dict[str, Any]
    method: dict[str, Any] | None = None
    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()
    size: tuple[int, int] = (800, 1333)


def convert(
    state_dict: Mapping[str, Any],
    *,
    layout: str,
    method: str,
    style: str | None = None,
    classes: Sequence[str] | None = None,
    allow: Collection[str] = (),
) -> dict[str, Tensor]:
    """The weights of a checkpoint under our names; arguments and errors are those of `publish`."""
    return publish(state_dict, layout=layout, method=method, style=style, classes=classes, allow=allow).weights


def publish(
    state_dict: Mapping[str, Any],
    *,
    layout: str,
    method: str,
    style: str | None = None,
    classes: Sequence[str] | None = None,
    allow: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Published:
    """A checkpoint as ours, with the settings that its shapes and its layout tell.

    Args:
        state_dict: what the file held, wrapped or not.
        layout: "mmdetection" (2.x and 3.x), "detectron2" or "torchvision".
        method: the stem of a method, or "backbone" where one was published alone.
        style: how the backbone was trained (`STYLES`), which no name reveals; the layout's usual when None.
        classes: their names; COCO's where there are 80, else numbers, when None.
        allow: what is refused otherwise, see `ALLOWANCES`.
        settings: of the method; those that shapes or the layout tell are told anew.

    Raises:
        ConfigError: a layout, method, style, allowance or setting does not exist.
        WeightsError: a weight has no place, is missing or has another shape; says which.
    """
    known = _chosen("layout", layout, LAYOUTS)
    rules = _chosen("method", method, known.methods, f" as {layout} writes it")
    for name in allow:
        _chosen("allow", name, ALLOWANCES)
    state = unwrap(state_dict)
    given = [name for name in state if not any(re.fullmatch(pattern, name) for pattern in known.ignored)]
    ours, unmatched = rename_all(given, rules)
    weights = known.arrange({new: state[old] for new, old in ours.items()})

    def refused(reason: str) -> WeightsError:
        return WeightsError(f"no {method} as {layout} writes it{_looks_like(state, layout, method)}:{reason}")

    try:
        body = resnet(weights)
    except WeightsError as error:
        raise refused(f" {error}{Account(unmatched=tuple(unmatched))}") from None
    trained = STYLES[_style(known, _kinds(method, body, weights), style, state)]
    weights = _for_rgb(weights, trained)
    backbone = {"_target_": _target(Backbone), "weights": "scratch", **body, **_facts(trained)}
    if method == "backbone":
        weights, left_out = _settled(weights, on_paper(backbone), ours, unmatched, refused, allow)
        return Published(
            {name.removeprefix(BODY): value for name, value in weights.items()}, backbone, None, (), (), left_out
        )

    count, told = read_settings(method, weights)
    node = {"_target_": _target(METHODS[method][0]), **(settings or {}), **told, **known.settings.get(method, {})}
    own = _names(classes, count)
    weights, left_out = _settled(weights, on_paper(backbone, method, node, own), ours, unmatched, refused, allow)
    if classes and len(classes) != len(own):
        heads = class_heads(Account.of(weights, on_paper(backbone, method, node, tuple(classes))))
        if "classes" not in allow:
            raise WeightsError(
                f"has {len(own)} classes, but {len(classes)} were named: name as many, or leave its heads out with "
                f"allow=[classes] ({', '.join(sorted(heads))})"
            )
        weights, left_out, own = without(weights, heads), (*left_out, *sorted(heads)), tuple(classes)
    return Published(weights, backbone, node, own, _ids(own), left_out)


def _looks_like(names: Collection[str], layout: str, method: str) -> str:
    """What more of the names fit, to be told where something is refused."""
    fitting = {
        (other, stem): len(rename_all(names, rules)[0])
        for other, known in LAYOUTS.items()
        for stem, rules in known.methods.items()
    }
    best = max(fitting, key=lambda choice: fitting[choice])
    return "" if fitting[best] == fitting[layout, method] else f" (more names fit layout={best[0]} method={best[1]})"


def on_paper(
    backbone: Mapping[str, Any],
    method: str = "backbone",
    node: Mapping[str, Any] | None = None,
    classes: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Names and shapes of the weights of a backbone, or of a method on it, without the memory they would take.

    Raises:
        ConfigError: a setting does not exist.
    """
    try:
        with torch.device("meta"):
            body = Backbone(**_plain(backbone))
            network = body if method == "backbone" else _method(body, method, node or {}, classes)
    except TypeError as error:
        raise ConfigError(f"settings: {error}") from error
    prefix = "backbone." if method == "backbone" else ""
    return {prefix + name: value for name, value in network.state_dict().items()}


def _method(backbone: Backbone, method: str, node: Mapping[str, Any], classes: Sequence[str]) -> nn.Module:
    return METHODS[method][0](backbone=backbone, classes=tuple(classes), **_plain(node))


def _plain(node: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without nested parts, which change no shape; lists as the tuples that signatures have."""
    return {
        name: _fixed(value)
        for name, value in node.items()
        if name == "options" or not (name == "_target_" or isinstance(value, Mapping))
    }


def _fixed(value: Any) -> Any:
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


def _settled(
    weights: dict[str, Tensor],
    expected: Mapping[str, Tensor],
    ours: Mapping[str, str],
    unmatched: Sequence[str],
    refused: Callable[[str], WeightsError],
    allow: Collection[str],
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights that have a place, and the names of those that were left out; raises where that is not allowed."""
    account = Account.of(weights, expected)
    extra = (*unmatched, *(ours.get(name, name) for name in account.unmatched))
    shapes = {f"{ours.get(name, name)} ({name})": shape for name, shape in account.misshaped.items()}
    wrong = replace(account, unmatched=() if "unmatched" in allow else extra, misshaped=shapes)
    if wrong:
        raise refused(str(wrong))
    return {name: value for name, value in weights.items() if name in expected}, extra


def _chosen(setting: str, name: str, known: Mapping[str, T], where: str = "") -> T:
    if name not in known:
        raise ConfigError(f"{setting}={name}{where}: expected one of {', '.join(known)}")
    return known[name]


def _target(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


# How the backbone was trained ----------------------------------------------------------------------------------------


def _kinds(method: str, body: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """The unusual cases that a checkpoint is (`Layout.usual`)."""
    if method == "backbone":
        return ["backbone"]
    resnext = "resnext" in body["name"] or "cardinality" in body.get("options", {})
    normed = "fpn.lateral.0.norm.weight" in weights
    return [kind for kind, is_one in (("resnext", resnext), ("normed", normed)) if is_one]


def _style(layout: Layout, kinds: Sequence[str], given: str | None, state: Mapping[str, Tensor]) -> str:
    """The name of the style: as given, as the file's pixel statistics tell, or the usual one."""
    if given is not None:
        _chosen("style", given, dict.fromkeys(layout.styles))
    if layout.pixels and all(name in state for name in layout.pixels):
        mean, std = (state[name].flatten().tolist() for name in layout.pixels)
        fitting = [name for name in layout.styles if _has(STYLES[name], mean, std)]
        if not fitting or (given is not None and given not in fitting):
            raise WeightsError(
                f"was trained on pixels of mean {_rounded(mean)} and deviation {_rounded(std)}, which is style "
                f"{' or '.join(fitting) or 'unknown'}; expected {given or ' or '.join(layout.styles)}"
            )
        return given or fitting[0]
    return given or next((layout.usual[kind] for kind in kinds if kind in layout.usual), layout.styles[0])


def _has(style: Style, mean: Sequence[float], std: Sequence[float]) -> bool:
    order = -1 if style.bgr else 1
    wanted = (*style.mean[::order], *style.std[::order])
    return all(abs(a - b) < 0.01 for a, b in zip((*mean, *std), wanted, strict=True))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


def _facts(style: Style) -> dict[str, Any]:
    """What our backbone has to be told."""
    facts = {
        "frozen_stages": FROZEN_STAGES,
        "frozen_norm": style.frozen_norm,
        "mean": list(style.mean),
        "std": list(style.std),
    }
    return {**facts, "stride_in_1x1": True} if style.stride_in_1x1 else facts


def _for_rgb(weights: Mapping[str, Tensor], style: Style) -> dict[str, Tensor]:
    """The same computation on red, green, blue, and with what our normalisation adds to the variance."""
    adapted = dict(weights)
    stem = f"{BODY}conv1.weight"
    if style.bgr and stem in weights:
        adapted[stem] = weights[stem].flip(1)
    if style.norm_eps != OUR_EPS:
        for name, value in weights.items():
            if name.startswith(BODY) and name.endswith(".running_var"):
                adapted[name] = value + (style.norm_eps - OUR_EPS)
    return adapted


# Classes -------------------------------------------------------------------------------------------------------------


def _names(given: Sequence[str] | None, count: int | None) -> tuple[str, ...]:
    """Of the file's own classes."""
    if given and count in (None, len(given)):
        return tuple(given)
    if count in (None, len(COCO)):
        return tuple(COCO.values())
    return tuple(f"class {label}" for label in range(1, count + 1))


def _ids(classes: Sequence[str]) -> tuple[int, ...]:
    return tuple(COCO) if tuple(classes) == tuple(COCO.values()) else tuple(range(1, len(classes) + 1))
