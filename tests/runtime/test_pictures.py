from __future__ import annotations

import re

import numpy as np
import pycocotools.mask as rle_codec
import pytest

from maskbench.runtime.pictures import outline


def encode(mask: np.ndarray):
    return rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))


def corners(path: str) -> set[tuple[int, ...]]:
    return {tuple(map(int, point)) for point in re.findall(r"(\d+) (\d+)", path)}


def test_an_outline_has_the_corners_of_its_mask() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:9, 10:18] = True
    path = outline(encode(mask))
    assert corners(path) == {(10, 4), (17, 4), (17, 8), (10, 8)}
    assert (path[0], path[-1], path.count("M")) == ("M", "Z", 1)


def test_two_parts_are_two_outlines_and_nothing_is_none() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    assert outline(encode(mask)) == ""
    mask[2:4, 2:4] = mask[10:12, 20:25] = True
    assert outline(encode(mask)).count("M") == 2


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_coarse_outline_is_that_of_every_nth_pixel(step: int) -> None:
    mask = np.zeros((61, 47), dtype=bool)
    y, x = np.ogrid[:61, :47]
    mask[(y - 30) ** 2 + (x - 20) ** 2 < 15**2] = True
    assert outline(encode(mask), step) == outline(encode(mask[::step, ::step]))
