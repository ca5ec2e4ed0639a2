from __future__ import annotations

import numpy as np
import pytest

from maskbench.data.fitting.inputs import BUDGETS, SMALL, fit_epochs, fit_long, fit_scale, fit_short, hundreds, spread

CPU, GPU = BUDGETS["cpu"], BUDGETS["gpu"]


def photos(*sizes: tuple[int, int]) -> np.ndarray:
    return np.array(sizes, float)


@pytest.mark.parametrize(
    ("size", "small", "budget", "side"),
    [
        ((480, 640), 0.5, GPU, 480),  # large objects: as it is
        ((480, 640), 16 / 600, GPU, 608),  # objects of 16 px at 600: the nearest multiple of 32
        ((480, 640), 0.001, GPU, 864),  # the megapixel
        ((200, 200), 0.001, GPU, 384),  # twice as large as it is, and no more
        ((480, 640), 0.001, CPU, 320),
        ((3000, 4000), 0.5, GPU, 864),  # smaller, because it has to be
        ((10, 10), 0.001, GPU, 32),
    ],
)
def test_a_photo_is_as_large_as_it_needs_and_may_be(size: tuple[int, int], small: float, budget, side: int) -> None:
    found = fit_short(photos(size), np.array([small]), budget)
    assert found.side == side
    assert found.small == pytest.approx(side * small)
    assert found.wanted == pytest.approx(SMALL / small)


def test_the_small_twentieth_decides() -> None:
    sizes = np.array([0.02] * 10 + [0.5] * 90)
    assert fit_short(photos((480, 640)), sizes, GPU).side == 800
    assert fit_short(photos((480, 640)), sizes[6:], GPU).side == 480


def test_long_sides_are_capped_beyond_most_photos() -> None:
    assert fit_long(photos((480, 640)), 800) == 1344  # 5/3, in multiples of 32
    assert fit_long(photos((100, 200)), 320) == 640
    assert fit_long(photos((100, 900)), 320) == 960  # three times at most
    assert fit_long(photos(*[(100, 100)] * 99, (100, 300)), 320) == 544  # one in a hundred is cut down


def test_objects_that_vary_little_are_varied_both_ways() -> None:
    assert spread(np.linspace(1, 2, 101)) == pytest.approx(1.95 / 1.05)
    assert fit_scale(3.0, (1.0, 1.0)) == [0.8, 1.25]
    assert fit_scale(30.0, (1.0, 1.0)) == [0.8, 1.0]
    assert fit_scale(30.0, (0.1, 2.0)) == [0.1, 2.0]  # large-scale jitter stays


@pytest.mark.parametrize(
    ("images", "budget", "epochs"),
    [(118_287, GPU, 12), (2975, GPU, 76), (2000, CPU, 4), (10, GPU, 300), (10**8, GPU, 1)],
)
def test_fewer_images_are_seen_more_often(images: int, budget, epochs: int) -> None:
    assert fit_epochs(images, budget) == epochs


@pytest.mark.parametrize(("number", "rounded"), [(0, 100), (100, 100), (101, 200), (375, 400)])
def test_hundreds(number: float, rounded: int) -> None:
    assert hundreds(number) == rounded
