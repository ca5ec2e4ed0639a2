"""The table: which rules apply to whom, what they read of each other, and what stays as it was given."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from maskbench.data.fitting.rules import RULES, Fitted, Known, fit
from planted import objects, profile, scattered

CROWD = profile(
    objects([(256, 256)] * 6, [scattered(np.random.default_rng(photo), (256, 256), 150, (6, 16)) for photo in range(6)])
)
SHARED: dict[str, Any] = {
    "backbone": {"strides": [4, 8, 16, 32]},
    "data": {"divisor": 32, "tune_share": 0.1, "tune_annotations": None, "limit": None},
    "evaluation": {"point": {"max_instances": 100, "candidates": 500}},
    "protocol": {"tflops": None, "minutes": None},
    "trainer": {"accelerator": "cpu", "max_epochs": 4},
    "transforms": {"train": {"scale": [1.0, 1.0]}, "eval": {"short": None, "long": None}},
}
SOLO = {"grids": [40, 36, 24, 16, 12], "ranges": [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]], "sigma": 0.2}
HYBRID = {"finest": 1, "ranges": [[0, 64], [64, 128], [128, 256], [256, 1e8]], "unit": 100.0, "dimensions": 32}
PROPOSALS = {"pre_nms": [2000, 300], "post_nms": [1000, 1000], "regions": [96, 0.25]}


def fitted(method: Mapping[str, Any], *said: str, **changed: Any) -> dict[str, Any]:
    """What is fitted to the crowd, by the last part of the name; `a__b=` changes what all methods share."""
    settings = deepcopy(SHARED) | {"method": dict(method)}
    for name, value in changed.items():
        *groups, last = name.split("__")
        node = settings
        for group in groups:
            node = node[group]
        node[last] = value
    return {each.setting: each.value for each in fit(CROWD, settings, frozenset(said))}


def of_method(found: Mapping[str, Any]) -> set[str]:
    return {setting.removeprefix("method.") for setting in found if setting.startswith("method.")}


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (SOLO, {"grids", "ranges"}),  # its sigma is a share of a box, and not a length
        (HYBRID, {"finest", "ranges", "unit"}),
        (PROPOSALS, set(PROPOSALS)),
        ({"anchor_scales": [8.0], "anchor_ratios": [0.5, 1.0, 2.0]}, {"anchor_scales", "anchor_ratios"}),
        ({"anchor_scales": [8.0]}, set()),
        ({"smallest": 4}, {"smallest"}),
        (
            {"sigma": 8.0, "window": 41, "small": [4096, 3.0], "centres": 200},
            {"sigma", "window", "small", "centres"},
        ),
        ({"flow_scale": 5.0, "steps": 200, "window": 5}, {"steps", "window"}),
        ({"unit": 1024.0, "margin": 4.9, "object_weight": 10.0}, {"unit", "margin"}),
        ({"dimensions": 8, "push_margin": 1.5}, {"dimensions"}),
    ],
)
def test_who_has_a_setting_has_it_fitted(method: dict[str, Any], names: set[str]) -> None:
    assert of_method(fitted(method)) == names


def test_every_rule_is_told_by_its_setting_and_those_beside_it() -> None:
    told = [(rule.setting, rule.beside) for rule in RULES]
    assert len(set(told)) == len(told)


def test_the_shared_settings_are_the_same_for_all_methods() -> None:
    shared = [
        {name: value for name, value in fitted(method).items() if not name.startswith("method.")}
        for method in (SOLO, HYBRID, PROPOSALS, {})
    ]
    assert all(found == shared[0] for found in shared)
    assert set(shared[0]) == {
        "transforms.eval.short",
        "transforms.eval.long",
        "transforms.train.scale",
        "trainer.max_epochs",
        "evaluation.point.max_instances",
        "evaluation.point.candidates",
    }


def test_lengths_are_in_pixels_of_the_fitted_input() -> None:
    whole = fitted(SOLO)
    assert whole["transforms.eval.short"] == 384  # the most that a CPU is given
    given = fitted(SOLO, "transforms.eval.short", transforms__eval__short=768)
    assert "transforms.eval.short" not in given
    assert given["method.ranges"][0][1] == pytest.approx(2 * whole["method.ranges"][0][1], abs=26)
    assert given["transforms.eval.long"] == 2 * whole["transforms.eval.long"]


def test_what_is_given_by_name_or_in_its_group_stays() -> None:
    assert of_method(fitted(SOLO, "method.grids")) == {"ranges"}
    assert of_method(fitted(SOLO, "method.ranges")) == {"grids"}
    assert "transforms.eval.long" not in fitted(SOLO, "transforms.eval")
    assert "method.grids" in fitted(SOLO, "method.grid")  # another word, not a group


def test_grids_belong_to_the_ranges_that_are_given() -> None:
    """Where one level learns all, its grid alone is fine."""
    one = [[1, 2048], [2048, 2049], [2048, 2049], [2048, 2049], [2048, 2049]]
    grids = fitted({**SOLO, "ranges": one}, "method.ranges")["method.grids"]
    assert grids[1:] == [12, 12, 12, 12]
    assert grids[0] > 40


def test_ranges_that_no_method_takes_are_for_the_method_to_refuse() -> None:
    assert of_method(fitted({**SOLO, "ranges": [[1, 64], [32, 2048]]}, "method.ranges")) == set()


def test_levels_of_the_hybrid_are_as_many_as_its_ranges() -> None:
    found = fitted(HYBRID)
    assert (found["method.finest"], len(found["method.ranges"])) == (0, 5)
    assert of_method(fitted(HYBRID, "method.ranges")) == {"unit"}
    assert len(fitted({**HYBRID, "finest": 2}, "method.finest")["method.ranges"]) == 3


def test_limits_rise_and_never_fall() -> None:
    found = fitted(PROPOSALS)
    assert found["evaluation.point.max_instances"] == 200
    assert found["evaluation.point.candidates"] == 500
    assert found["method.pre_nms"] == [2000, 400]
    assert found["method.post_nms"] == [1000, 1000]
    assert found["method.regions"] == [600, 0.25]
    assert (
        fitted(PROPOSALS, evaluation__point={"max_instances": 400, "candidates": 500})["evaluation.point.max_instances"]
        == 400
    )
    assert fitted({**PROPOSALS, "regions": [900, 0.5]})["method.regions"] == [900, 0.5]


def test_all_candidates_stay_all() -> None:
    assert "evaluation.point.candidates" not in fitted(SOLO, evaluation__point__candidates=None)


@pytest.mark.parametrize(
    "planned",
    [
        {"trainer__max_epochs": None},
        {"trainer__max_steps": 90_000},
        {"protocol__tflops": 500},
        {"protocol__minutes": 3.0},
    ],
)
def test_a_length_that_is_planned_otherwise_is_left_alone(planned: dict[str, Any]) -> None:
    assert "trainer.max_epochs" not in fitted(SOLO, **planned)
    assert "trainer.max_epochs" in fitted(SOLO)


def test_the_schedule_goes_by_the_images_that_are_trained_on() -> None:
    assert fitted(SOLO)["trainer.max_epochs"] == round(4 * (2000 / 5) ** 0.5)  # one of six is for tuning
    assert fitted(SOLO, data__limit=2)["trainer.max_epochs"] == round(4 * (2000 / 2) ** 0.5)
    tuned = fitted(SOLO, data__tune_annotations="tune.json")
    assert tuned["trainer.max_epochs"] == round(4 * (2000 / 6) ** 0.5)


def test_a_machine_with_a_gpu_has_another_budget() -> None:
    assert fitted(SOLO, trainer__accelerator="auto")["transforms.eval.short"] == 512  # twice the photo
    assert fitted(SOLO, trainer__accelerator="auto")["trainer.max_epochs"] == 300


def test_nothing_is_fitted_to_nothing() -> None:
    settings = deepcopy(SHARED) | {"method": SOLO}
    assert fit(profile(objects([(20, 30)], [[]])), settings) == ()


def test_the_settings_that_are_read_stay_as_they_are() -> None:
    settings = deepcopy(SHARED) | {"method": deepcopy(SOLO)}
    fit(CROWD, settings)
    assert settings == SHARED | {"method": SOLO}


def test_objects_that_are_alone_have_no_neighbours_to_be_told_from() -> None:
    alone = profile(objects([(64, 64)] * 3, [[(8, 8, 40, 40)]] * 3))
    method = {"sigma": 4.0, "window": 9, "small": [4096, 3.0], "centres": 200}
    found = {each.setting: each for each in fit(alone, deepcopy(SHARED) | {"method": method})}
    assert found["method.window"].value == 41
    assert found["method.window"].reason.startswith("No photo has two objects")


def test_anchors_are_told_with_what_they_gain() -> None:
    method = {"anchor_scales": [8.0], "anchor_ratios": [0.5, 1.0, 2.0]}
    found = {each.setting: each for each in fit(CROWD, deepcopy(SHARED) | {"method": method})}
    after, before = (float(word.strip(".,")) for word in found["method.anchor_scales"].reason.split() if word[0] == "0")
    assert after > before + 0.1


def test_a_setting_is_looked_for_by_its_dotted_name() -> None:
    known = Known(CROWD, {"a": {"b": None}, "c": 1}, frozenset({"a"}))
    assert known.has("a.b")
    assert not known.has("a.x")
    assert not known.has("c.b")
    assert known["c"] == 1
    assert known.fixed("a.b")
    assert not known.fixed("ab")
    assert Fitted("c", 2, "why").setting == "c"
