from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from maskbench.evaluation.errors import KINDS
from maskbench.study.leaderboard import Group, group, tabulate
from maskbench.study.plots import (
    PALETTE,
    ap_against_fps,
    ap_by_size,
    learning_curves,
    pareto_front,
    styles,
    where_time_goes,
    why_ap_is_lost,
)
from maskbench.study.runs import Run, read_runs


@pytest.fixture
def tabled(study: Path) -> tuple[Group, list[Run]]:
    runs = read_runs(study)
    return group(tabulate(runs))[0], runs


def test_the_front_is_what_nothing_beats_in_both() -> None:
    assert pareto_front([(10, 60), (20, 50), (15, 40), (30, 30), (20, 45)]) == [3, 1, 0]
    assert pareto_front([(10, 60), (10, 60)]) == [0]
    assert pareto_front([]) == []


def test_a_method_has_a_colour_and_a_paradigm_a_marker() -> None:
    looks = styles({"b": "one-stage", "a": "two-stage", "c": "one-stage", "d": None})
    assert len({look.colour for look in looks.values()}) == 4
    assert looks["b"].marker == looks["c"].marker != looks["a"].marker
    assert looks["a"].colour == PALETTE[0]


def test_no_two_of_many_methods_look_alike() -> None:
    """Thirteen, in an alphabet that has a paradigm's methods nine apart."""
    paradigms = ("bottom-up", "bottom-up", "two-stage", "one-stage", "two-stage", "bottom-up", "two-stage")
    looks = styles({f"{place:02d}": paradigms[place % len(paradigms)] for place in range(13)})
    assert len({(look.colour, look.marker) for look in looks.values()}) == 13


def test_a_bar_has_room_beside_a_long_name() -> None:
    """Or matplotlib warns that it can't lay the figure out."""
    long = "mask_rcnn-small, pool=roi_warp, mask=softmax, upsample=nearest_conv, " + 40 * "x"
    methods = pd.DataFrame({"label": [long, "solov2-small"], "AP50": [0.5, 0.6]})
    picture = why_ap_is_lost(methods, {label: {"missed": 0.4} for label in methods["label"]})
    assert picture.count("<svg") == 1


def test_colours_differ_in_lightness_or_hue() -> None:
    distances = [
        sum((x - y) ** 2 for x, y in zip(to_rgb(one), to_rgb(two), strict=True)) ** 0.5
        for place, one in enumerate(PALETTE)
        for two in PALETTE[:place]
    ]
    assert min(distances) > 0.15


def test_pictures_are_svg_with_the_methods_colours(tabled: tuple[Group, list[Run]]) -> None:
    found, runs = tabled
    looks = styles(dict(zip(found.methods["method"], found.methods["paradigm"], strict=True)))
    pictures = [
        ap_against_fps(found.methods, found.trials, looks),
        ap_by_size(found.methods, found.trials, looks),
        learning_curves(runs, looks, "images"),
        learning_curves(runs, looks, "minutes"),
    ]
    for picture in pictures:
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert all(look.colour.lower() in picture for look in looks.values())


def test_the_same_runs_give_the_same_picture(tabled: tuple[Group, list[Run]]) -> None:
    found, _ = tabled
    looks = styles(dict.fromkeys(found.methods["method"]))
    assert ap_by_size(found.methods, found.trials, looks) == ap_by_size(found.methods, found.trials, looks)


def test_dots_on_a_bar_are_the_seeds_of_its_own_settings(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (64, 128):
        for seed in (0, 1):
            folder = writer("solov2-small", seed, method={"_target_": "maskbench.methods.solov2", "width": width})
    found = group(tabulate(read_runs(folder.parent)))[0]
    dots: list[int] = []
    plot = Axes.plot

    def spy(axes: Axes, x: Any, *rest: Any, **settings: Any) -> Any:
        dots.append(len(x))
        return plot(axes, x, *rest, **settings)

    monkeypatch.setattr(Axes, "plot", spy)
    ap_by_size(found.methods, found.trials, styles(dict.fromkeys(found.methods["method"])))
    assert dots == [2] * 4  # two settings, small and medium objects


def test_far_apart_speeds_stand_on_a_logarithmic_axis(tabled: tuple[Group, list[Run]]) -> None:
    found, _ = tabled
    looks = styles(dict.fromkeys(found.methods["method"]))
    methods, trials = found.methods.copy(), found.trials.copy()
    methods.loc[0, "FPS"] = 600.0
    assert ap_against_fps(methods, trials.head(0), looks) != ap_against_fps(found.methods, trials.head(0), looks)


def test_labels_keep_clear_of_each_other(tabled: tuple[Group, list[Run]], monkeypatch: pytest.MonkeyPatch) -> None:
    from maskbench.study import plots

    found, _ = tabled
    boxes: list[Any] = []
    place = plots._place_labels

    def spy(figure: Any, axes: Any, *rest: Any) -> None:
        place(figure, axes, *rest)
        boxes.extend(text.get_window_extent() for text in axes.texts)

    monkeypatch.setattr(plots, "_place_labels", spy)
    methods = found.methods.assign(FPS=50.0, AP=[0.5, 0.501, 0.502])
    sizes = {methods["label"][0]: [(96, 60.0, 0.45), (160, 30.0, 0.53)]}
    ap_against_fps(methods, found.trials.head(0), styles(dict.fromkeys(methods["method"])), sizes)
    assert len(boxes) == 5
    assert not any(one.overlaps(two) for place, one in enumerate(boxes) for two in boxes[:place])


def test_a_run_without_history_has_no_curve(tabled: tuple[Group, list[Run]]) -> None:
    _, runs = tabled
    bare = Run(folder=Path("x"), method="solov2-small", seed=0, hash="0" * 8, state="running")
    looks = styles({run.method: None for run in runs})
    assert re.search("<svg", learning_curves([bare], looks, "images"))


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Where the stacked bars drawn so far end, by label."""
    ends: dict[str, float] = {}
    barh = Axes.barh

    def spy(axes: Axes, labels: Any, widths: Any, left: Any, **settings: Any) -> Any:
        assert (np.asarray(widths) >= 0).all()
        ends.update(zip(labels, np.asarray(left) + widths, strict=True))
        return barh(axes, labels, widths, left=left, **settings)

    monkeypatch.setattr(Axes, "barh", spy)
    return ends


def test_errors_are_stacked_to_what_ap50_lacks(tabled: tuple[Group, list[Run]], ends: dict[str, float]) -> None:
    found, _ = tabled
    parts = {kind: 0.01 * (place + 1) for place, kind in enumerate(KINDS)}
    known, other = found.methods["label"].iloc[0], found.methods["label"].iloc[1]
    why_ap_is_lost(found.methods, {known: {**parts, "rest": 0.05}, other: {**parts, "rest": -0.05}})
    assert sorted(label.split(",")[0] for label in ends) == sorted([known, other])
    assert sorted(ends.values()) == pytest.approx([21.0, 26.0])


def test_phases_are_stacked_to_the_latency(tabled: tuple[Group, list[Run]], ends: dict[str, float]) -> None:
    found, _ = tabled
    known, other = found.methods["label"].iloc[0], found.methods["label"].iloc[1]
    eager, compiled = {"prepare": 1.0, "backbone": 2.0, "masks": 4.0}, {"prepare": 1.0, "network": 1.5}
    drawn = where_time_goes(found.methods, {known: eager, other: compiled})
    assert ends == pytest.approx({known: 7.0, other: 2.5})
    assert "network" in drawn
    assert "selection" not in drawn, "none has this phase"
