from __future__ import annotations

import numpy as np
import pytest

from maskbench.data.fitting.seen import Seen
from maskbench.data.profile import Objects
from maskbench.data.transforms import fitted
from planted import objects, scattered

TWO = objects([(20, 30), (40, 40)], [[(3, 2, 10, 8), (5, 5, 20, 12)], [(0, 0, 40, 20)]])


def test_lengths_grow_with_the_photo() -> None:
    seen = Seen.of(TWO, 40, None, 32)
    assert seen.photos.tolist() == [[40, 60], [40, 40]]
    assert seen.padded.tolist() == [[64, 64], [64, 64]]
    assert seen.sides.tolist() == [[14, 12], [30, 14], [40, 20]]  # the first photo twice as large, the second as it is
    assert seen.sizes.tolist() == pytest.approx([(14 * 12) ** 0.5, (30 * 14) ** 0.5, (40 * 20) ** 0.5])
    assert seen.areas.tolist() == [4 * 42, 4 * 105, 800]


@pytest.mark.parametrize(("short", "long"), [(None, None), (None, 24), (50, None), (50, 60), (333, 1000)])
def test_photos_have_the_size_that_the_evaluation_pipeline_gives_them(short: int | None, long: int | None) -> None:
    photos = [(20, 30), (41, 37), (7, 100)]
    seen = Seen.of(objects(photos, [[], [], []]), short, long, 32)
    assert seen.photos.tolist() == [list(fitted(photo, short, long)) for photo in photos]


def test_a_centre_is_that_of_the_resized_mask() -> None:
    """Of an object that fills its photo it is the middle of all pixels, whatever their number."""
    for short in (20, 40, 130):
        seen = Seen.of(objects([(20, 20)], [[(0, 0, 20, 20)]]), short, None, 1)
        assert seen.centres.tolist() == [[(short - 1) / 2] * 2]


def test_the_nearest_centre_is_one_of_the_same_photo() -> None:
    boxes = [(0, 0, 2, 2), (7, 3, 9, 5), (30, 0, 32, 2)]
    seen = Seen.of(objects([(40, 40)] * 3, [boxes, [(0, 1, 2, 3)], []]), None, None, 32)
    assert seen.apart.tolist() == [7, 7, 23]  # along the farther axis; the one that is alone has none
    assert Seen.of(objects([(9, 9)], [[(0, 0, 2, 2)]]), None, None, 32).apart.tolist() == []
    assert Seen.of(Objects([], []), None, None, 32).apart.tolist() == []


def test_many_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = objects([(400, 300)], [scattered(np.random.default_rng(0), (400, 300), 50, (3, 20))])
    whole = Seen.of(scene, None, None, 32).apart
    monkeypatch.setattr("maskbench.data.fitting.seen.ROWS", 7)
    assert Seen.of(scene, None, None, 32).apart.tolist() == whole.tolist()
