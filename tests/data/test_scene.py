from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from maskbench.data import scene
from maskbench.data.scene import HUES, SILHOUETTES, TURN, UNIT, Draws, Look, Shape, paint


def centred(name: str, radius: float = 20, direction: int = 0, form: int = 0) -> np.ndarray:
    """A lone shape in the middle of 64 x 64 pixels."""
    shape = Shape(0, 32 * 16, 32 * 16, round(radius * 16), direction, (form, form, form))
    return scene._mask(shape, Look(size=64, classes=(name,)))


def test_the_stream_is_pinned() -> None:
    draws = Draws(0, 1, 2)
    assert [draws.below(1000) for _ in range(5)] == [881, 289, 871, 125, 176]
    assert draws.bytes(2, 3).tolist() == [[75, 200, 218], [35, 5, 207]]


def test_draws_reach_both_ends_and_nothing_else() -> None:
    draws = Draws(3)
    assert {draws.between(-2, 2) for _ in range(200)} == {-2, -1, 0, 1, 2}
    assert not any(draws.chance(0) for _ in range(100))
    assert all(draws.chance(1) for _ in range(100))


def test_no_cosine_is_near_a_half_where_machines_could_round_differently() -> None:
    halves = [abs((UNIT * math.cos(2 * math.pi * step / TURN)) % 1 - 0.5) for step in range(TURN)]
    assert min(halves) > 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_gives_the_same_image_everywhere(seed: int) -> None:
    drawn = paint(Look(classes=tuple(SILHOUETTES), hue="any"), Draws(seed, 0, 0), crowd=seed == 1)
    digest = hashlib.sha256(drawn.image.tobytes() + np.stack(drawn.masks).tobytes()).hexdigest()[:16]
    assert digest == {0: "297d69d25d548862", 1: "aea2c7943c0cfd97"}[seed]


@pytest.mark.parametrize("direction", range(0, TURN, 37))
def test_areas_are_those_of_geometry(direction: int) -> None:
    assert centred("disc").sum() == pytest.approx(math.pi * 20**2, rel=0.02)
    assert centred("triangle", direction=direction, form=128).sum() == pytest.approx(
        3 * math.sqrt(3) / 4 * 400, rel=0.03
    )
    # a pentagram fills 1.1226 of the squared radius
    assert centred("star", direction=direction).sum() == pytest.approx(1.1226 * 400, rel=0.04)
    side = 2 * 20 * 215 / 256
    assert centred("rectangle", direction=direction).sum() == pytest.approx(side * side / 2, rel=0.05)


def test_a_ring_is_a_disc_with_a_hole() -> None:
    ring, disc = centred("ring"), centred("disc")
    assert not ring[32, 32]
    assert not (ring & ~disc).any()
    assert (disc & ~ring).sum() == pytest.approx(math.pi * (20 * 110 / 256) ** 2, rel=0.05)


def test_masks_are_what_is_visible() -> None:
    for index in range(40):
        drawn = paint(Look(), Draws(0, 0, index))
        assert np.sum(drawn.masks, axis=0).max(initial=0) <= 1
        for mask, whole in zip(drawn.masks, drawn.wholes, strict=True):
            assert mask.sum() >= max(scene.LEAST, Look().visible * whole)


def test_objects_touch_and_occlude_their_own_class() -> None:
    occluded = neighbours = 0
    for index in range(60):
        drawn = paint(Look(), Draws(0, 0, index))
        occluded += sum(int(mask.sum()) < whole for mask, whole in zip(drawn.masks, drawn.wholes, strict=True))
        for first in range(len(drawn.masks)):
            for second in range(first):
                grown = drawn.masks[first].copy()
                grown[1:] |= drawn.masks[first][:-1]
                grown[:, 1:] |= drawn.masks[first][:, :-1]
                touch = bool((grown & drawn.masks[second]).any())
                neighbours += touch and drawn.labels[first] == drawn.labels[second]
    assert occluded > 20
    assert neighbours > 10


def test_some_images_are_empty_and_the_others_hold_what_was_asked_for() -> None:
    counts = [len(paint(Look(size=64, empty=0.4), Draws(1, index)).masks) for index in range(50)]
    assert 10 <= counts.count(0) <= 30
    assert max(counts) <= 5


def test_objects_without_a_place_are_left_out() -> None:
    drawn = paint(Look(size=64, objects=(9, 9), radius=(0.5, 0.5), visible=1.0, empty=0), Draws(0))
    assert 1 <= len(drawn.masks) < 9
    assert [int(mask.sum()) for mask in drawn.masks] == drawn.wholes


def test_a_crowd_is_one_region_under_the_objects() -> None:
    drawn = paint(Look(), Draws(7), crowd=True)
    assert drawn.crowds == [True] + [False] * (len(drawn.masks) - 1)
    assert len(drawn.masks) > 1


def test_hue_tells_the_class_when_it_is_tied_to_it() -> None:
    draws = Draws(0)
    for label in range(3):
        for _ in range(20):
            colour = scene._colour(label, Look(), draws)
            assert max(range(3), key=lambda channel: colour[channel]) == label
    assert HUES % 3 == 0
