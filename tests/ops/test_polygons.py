from __future__ import annotations

import math

import pycocotools.mask as rle_codec
import pytest

from maskbench.ops.polygons import rasterise


def test_the_union_is_drawn_once() -> None:
    rle = rasterise([[0, 0, 4, 0, 4, 4, 0, 4], [2, 0, 6, 0, 6, 4, 2, 4]], (10, 12))
    assert rle["size"] == [10, 12]
    assert rle_codec.area(rle) == 6 * 4


def test_what_lies_outside_is_cut_off() -> None:
    assert rle_codec.area(rasterise([[-100, -100, 100, -100, 100, 100, -100, 100]], (10, 12))) == 10 * 12


@pytest.mark.parametrize("far", [1e9, -1e9, math.nan, math.inf])
def test_a_coordinate_far_outside_is_refused_before_it_takes_the_memory(far: float) -> None:
    with pytest.raises(ValueError, match=r"reaches to .*10 x 12 pixels"):
        rasterise([[0, 0, 4, 0, 4, far, 0, 4]], (10, 12))
