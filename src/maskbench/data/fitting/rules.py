"""The table of what is fitted: one rule a setting, from the statistics of the training file, the same for all methods.

A rule applies where its setting is there, with those that say whose it is. It reads what the rules above it have
settled, so their order matters: the size of the input comes first, since all lengths are in its pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from maskbench.data.fitting import anchors, grids, inputs, lengths
from maskbench.data.fitting.seen import Seen
from maskbench.data.profile import Profile

SPARE = 2.5
"""Candidates for each object of the fullest photo."""


class Fitted(NamedTuple):
    """The value of a setting and why it has it."""

    setting: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Known:
    """What a rule may ask.

    Args:
        profile: of the training file, with at least one object.
        settings: of the run, with what the rules before have fitted.
        said: settings that somebody has given by name.
    """

    profile: Profile
    settings: Mapping[str, Any]
    said: frozenset[str] = frozenset()

    def has(self, setting: str) -> bool:
        """Whether there is a setting of that dotted name."""
        node: Any = self.settings
        for name in setting.split("."):
            if not isinstance(node, Mapping) or name not in node:
                return False
            node = node[name]
        return True

    def __getitem__(self, setting: str) -> Any:
        node: Any = self.settings
        for name in setting.split("."):
            node = node[name]
        return node

    def fixed(self, setting: str) -> bool:
        """Whether it, or a group that it lies in, was given by name."""
        return any(setting == said or setting.startswith(f"{said}.") for said in self.said)

    @cached_property
    def stored(self) -> Seen:
        """The objects in pixels of their photos."""
        return Seen.of(self.profile.objects, None, None, self["data.divisor"])

    @property
    def seen(self) -> Seen:
        """The objects in pixels of the network input, whose size may yet be fitted."""
        size = self["transforms.eval.short"], self["transforms.eval.long"], self["data.divisor"]
        if size not in self._seen:
            self._seen[size] = Seen.of(self.profile.objects, *size)
        return self._seen[size]

    @cached_property
    def _seen(self) -> dict[tuple[int | None, int | None, int], Seen]:
        return {}

    @property
    def near(self) -> float:
        """Pixels of the network input that all but a few centres keep from the nearest other."""
        return lengths.near(self.seen.apart)

    @property
    def stride(self) -> int:
        """Of the map on which bottom-up methods draw."""
        return self["backbone.strides"][0]

    @property
    def budget(self) -> inputs.Budget:
        return inputs.BUDGETS["cpu" if self["trainer.accelerator"] == "cpu" else "gpu"]

    @property
    def most(self) -> int:
        """Objects of the fullest photo."""
        return self.profile.most_per_image


Found = tuple[Any, str]
"""A value and the reason."""


@dataclass(frozen=True)
class Rule:
    """How one setting follows from the data.

    Args:
        setting: its dotted name.
        fit: the value and the reason; None where there is nothing to fit.
        beside: settings that must be there too, where methods have others of the same name.
    """

    setting: str
    fit: Callable[[Known], Found | None]
    beside: tuple[str, ...] = ()

    def __call__(self, known: Known) -> Fitted | None:
        """What is fitted; None where the rule doesn't apply, or the setting was given by name."""
        if known.fixed(self.setting) or not all(map(known.has, (self.setting, *self.beside))):
            return None
        found = self.fit(known)
        return None if found is None else Fitted(self.setting, *found)


# What all methods share ----------------------------------------------------------------------------------------------


def _short(known: Known) -> Found:
    stored = known.stored
    shorts = stored.photos.min(axis=1)[stored.photo]
    found = inputs.fit_short(stored.photos, np.sqrt(stored.areas) / shorts, known.budget)
    small = f"a twentieth of the objects has less than {found.small:.0f} px (√area) there"
    if found.side + inputs.DIVISOR <= found.wanted:
        small += f", where {inputs.SMALL:.0f} px would take {found.wanted:.0f}"
    return found.side, (
        f"Photos have {found.own:.0f} px; {known.budget.pixels:,} px of an input allow {found.affordable:.0f}, "
        f"{inputs.UP:g} times the typical photo {inputs.UP * found.own:.0f}; {small}."
    )


def _long(known: Known) -> Found | None:
    short = known["transforms.eval.short"]
    if short is None:
        return None  # photos stay as large as they are
    value = inputs.fit_long(known.stored.photos, short)
    return value, f"Photos up to {value / short:.2f} times as long as wide keep a short side of {short}."


def _scale(known: Known) -> Found:
    low, high = known["transforms.train.scale"]
    spread = inputs.spread(np.sqrt(known.seen.areas))
    varied = "vary little" if spread < inputs.VARIED else "vary by themselves"
    return inputs.fit_scale(spread, (low, high)), (
        f"Sizes of objects {varied}: large ones (95 %) are {spread:.1f} times as large as small ones (5 %)."
    )


def _epochs(known: Known) -> Found | None:
    planned, steps = known["trainer.max_epochs"], known["trainer"].get("max_steps")
    if planned is None or (steps or -1) > 0 or known["protocol.tflops"] or known["protocol.minutes"]:
        return None
    data, images = known["data"], known.profile.images
    share = 0 if data["tune_annotations"] is not None else data["tune_share"]
    images = min(round((1 - share) * images), data["limit"] or images)
    budget = known.budget
    return inputs.fit_epochs(images, budget), (
        f"{images:,} images to train on, where {budget.images:,} have {budget.epochs} epochs: "
        "the images seen grow with the root of their number."
    )


def _max_instances(known: Known) -> Found:
    value = max(known["evaluation.point.max_instances"], inputs.hundreds(known.most))
    return value, f"A photo has up to {known.most} objects."


def _candidates(known: Known) -> Found | None:
    limit, now = known["evaluation.point.max_instances"], known["evaluation.point.candidates"]
    if now is None:
        return None
    return max(now, inputs.hundreds(SPARE * limit)), f"Two and a half times the {limit} instances that count."


def _enough(known: Known) -> tuple[int, str]:
    """Candidates for all objects of the fullest photo."""
    reason = f"At least two and a half for each of up to {known.most} objects of a photo."
    return inputs.hundreds(SPARE * known.most), reason


# Two-stage -----------------------------------------------------------------------------------------------------------


def _pyramid(known: Known) -> list[int]:
    """Strides of the levels of anchors and locations (`nn.fpn`)."""
    strides = list(known["backbone.strides"])
    return [*strides, 2 * strides[-1]]


def _overlap(known: Known, scales: list[float], ratios: list[float]) -> float:
    return anchors.mean_best(known.seen.sides, _pyramid(known), scales, ratios)


def _anchor_ratios(known: Known) -> Found:
    now, scales = list(known["method.anchor_ratios"]), list(known["method.anchor_scales"])
    fitted = anchors.fit_ratios(known.seen.sides, now)
    return _better(fitted, now, lambda ratios: _overlap(known, scales, ratios))


def _anchor_scales(known: Known) -> Found:
    now, ratios = list(known["method.anchor_scales"]), list(known["method.anchor_ratios"])
    fitted = anchors.fit_scales(known.seen.sides, _pyramid(known), now, ratios)
    return _better(fitted, now, lambda scales: _overlap(known, scales, ratios))


def _better(fitted: list[float], now: list[float], overlap: Callable[[list[float]], float]) -> Found:
    """What is fitted, unless boxes and anchors overlap more as it is now."""
    before, after = overlap(now), overlap(fitted)
    if after < before:
        fitted, after = now, before
    return fitted, f"k-means on IoU: mean best IoU of boxes and anchors {after:.3f}, with {now} {before:.3f}."


def _proposals(setting: str) -> Callable[[Known], Found]:
    def fit(known: Known) -> Found:
        enough, reason = _enough(known)
        return [max(count, enough) for count in known[setting]], reason

    return fit


def _regions(known: Known) -> Found:
    count, share = known["method.regions"]
    typical = known.profile.per_image[2]
    return [max(count, 8 * int(np.ceil(typical / share / 8))), share], (
        f"The positive share of them is enough for the {typical:.0f} objects of the typical photo."
    )


# One-stage -----------------------------------------------------------------------------------------------------------


def _grid_ranges(known: Known) -> Found:
    return grids.fit_ranges(known.seen), (
        f"√(w·h) of the median object is {np.median(known.seen.sizes):.0f} px: the first level learns the smaller half."
    )


def _grids(known: Known) -> Found | None:
    now, ranges = known["method.grids"], known["method.ranges"]
    if not len(now) == len(ranges) == len(grids.STRIDES):
        return None  # the method says what it expects
    fitted = grids.fit_grids(known.seen, ranges)
    after, before = (grids.lost(known.seen, sides, ranges) for sides in (fitted, now))
    return fitted, (
        f"{after:.1%} of the objects lose the cell of their centre to another on every level of their size "
        f"({before:.1%} with {list(now)}; wanted is {grids.LOST:.0%} at most)."
    )


# Bottom-up and hybrid ------------------------------------------------------------------------------------------------


def _smallest(known: Known) -> Found:
    cells = float(np.quantile(known.seen.areas, 0.01)) / known.stride**2
    return lengths.fit_smallest(known.seen.areas, known.stride), (
        f"A hundredth of the objects has less than {cells:.1f} cells of stride {known.stride}: half of it, 2 at least."
    )


def _near(known: Known) -> str:
    if not np.isfinite(known.near):
        return "No photo has two objects"
    return f"All but a twentieth of the centres lie {known.near:.0f} px or more from the next"


def _window(known: Known) -> Found:
    reach = lengths.fit_reach(known.near, known.stride, most=5)
    return 2 * reach * known.stride + 1, f"{_near(known)}: {reach} cells around a centre none is hotter."


def _sigma(known: Known) -> Found:
    return lengths.fit_bump(known.near, known.stride, most=8.0), f"{_near(known)}: half of that, 8 px at most."


def _small(known: Known) -> Found:
    _, weight = known["method.small"]
    return [int(np.median(known.seen.areas)), weight], "The area of the median object, in pixels of the input."


def _centres(known: Known) -> Found:
    enough, reason = _enough(known)
    return max(known["method.centres"], enough), reason


def _steps(known: Known) -> Found:
    return lengths.fit_steps(known.seen.sides, known.stride), (
        f"Half of width and height of all but the largest hundredth, in cells of stride {known.stride}."
    )


def _flow_window(known: Known) -> Found:
    reach = lengths.fit_reach(known.near, known.stride, most=2)
    return 2 * reach + 1, f"{_near(known)}: {reach} cells around a sink are its own."


def _field(known: Known) -> Found:
    longest = float(np.quantile(known.seen.sides.max(axis=1), 0.99))
    return float(np.ceil(longest)), "The longer side of all but the largest hundredth of the objects, in pixels."


def _margin(known: Known) -> Found:
    median = float(np.median(known.seen.sizes))
    return max(
        float(known.stride), round(median / 5, 1)
    ), f"A fifth of the median object's {median:.0f} px, a cell at least."


def _dimensions(known: Known) -> Found:
    value = max(known["method.dimensions"], 16 if known.most > 64 else 8)
    return value, f"A photo has up to {known.most} objects to be held apart; 16 from 65 on."


def _unit(known: Known) -> Found:
    return float(round(np.median(known.seen.sizes))), "√(w·h) of the median object, in pixels."


def _finest(known: Known) -> Found | None:
    if known.fixed("method.ranges"):
        return None  # which belong to the levels that there are
    small, stride = float(np.quantile(known.seen.sizes, 0.05)), _pyramid(known)[1]
    fine = small < 2 * stride
    return (
        0 if fine else 1
    ), f"A twentieth of the objects is below {small:.0f} px: two cells of stride {stride} are {2 * stride}."


def _farthest(known: Known) -> Found:
    median = float(np.median(known.seen.sizes))
    strides = _pyramid(known)[known["method.finest"] :]
    return lengths.fit_farthest(median, strides), f"√(w·h) of the median object is {median:.0f} px."


RULES = (
    Rule("transforms.eval.short", _short),
    Rule("transforms.eval.long", _long),
    Rule("transforms.train.scale", _scale),
    Rule("trainer.max_epochs", _epochs),
    Rule("evaluation.point.max_instances", _max_instances),
    Rule("evaluation.point.candidates", _candidates),
    # anchors and proposals: Mask R-CNN, Cascade, HTC, PointRend
    Rule("method.anchor_ratios", _anchor_ratios, beside=("method.anchor_scales",)),
    Rule("method.anchor_scales", _anchor_scales, beside=("method.anchor_ratios",)),
    Rule("method.pre_nms", _proposals("method.pre_nms")),
    Rule("method.post_nms", _proposals("method.post_nms")),
    Rule("method.regions", _regions),
    # grids: SOLO, Decoupled SOLO, SOLOv2
    Rule("method.ranges", _grid_ranges, beside=("method.grids",)),
    Rule("method.grids", _grids, beside=("method.ranges",)),
    # maps: all bottom-up methods
    Rule("method.smallest", _smallest),
    # centres and offsets
    Rule("method.sigma", _sigma, beside=("method.centres", "method.window")),
    Rule("method.window", _window, beside=("method.centres", "method.sigma")),
    Rule("method.small", _small, beside=("method.centres",)),
    Rule("method.centres", _centres),
    # flows
    Rule("method.steps", _steps, beside=("method.flow_scale",)),
    Rule("method.window", _flow_window, beside=("method.flow_scale",)),
    # spatial embeddings
    Rule("method.unit", _field, beside=("method.margin", "method.object_weight")),
    Rule("method.margin", _margin, beside=("method.unit", "method.object_weight")),
    # pull and push: lengths in its embedding follow from the loss's margins, whatever the data
    Rule("method.dimensions", _dimensions, beside=("method.push_margin",)),
    # locations and embeddings: the hybrid
    Rule("method.finest", _finest, beside=("method.ranges",)),
    Rule("method.ranges", _farthest, beside=("method.finest",)),
    Rule("method.unit", _unit, beside=("method.finest",)),
)


READ = ("backbone", "data", "evaluation", "method", "protocol", "trainer", "transforms")
"""Groups of settings that rules read."""


def fit(profile: Profile, settings: Mapping[str, Any], said: frozenset[str] = frozenset()) -> tuple[Fitted, ...]:
    """What settings follow from the data, in the order of the table; none where there is no object.

    Args:
        profile: of the training file.
        settings: of the run, resolved, those of `READ` at least.
        said: those, by dotted name, that stay as they are.
    """
    found: list[Fitted] = []
    if not profile.objects.rows:
        return ()
    known = Known(profile, settled := deepcopy(dict(settings)), said)
    for rule in RULES:
        if value := rule(known):
            _put(settled, value)
            found.append(value)
    return tuple(found)


def _put(settings: dict[str, Any], value: Fitted) -> None:
    *groups, name = value.setting.split(".")
    for group in groups:
        settings = settings[group]
    settings[name] = value.value
