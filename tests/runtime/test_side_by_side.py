from __future__ import annotations

import numpy as np
import pytest

from maskbench.runtime.side_by_side import GAP, SIDE, side_by_side


def panels(count: int, size: tuple[int, int]) -> dict[tuple[str, str], np.ndarray]:
    return {(f"method {number}", "1 instance"): np.full((*size, 3), 10 * number, np.uint8) for number in range(count)}


@pytest.mark.parametrize(("count", "rows", "abreast"), [(1, 1, 1), (3, 1, 3), (4, 1, 4), (5, 2, 3), (14, 4, 4)])
def test_panels_stand_in_rows_of_four_at_most(count: int, rows: int, abreast: int) -> None:
    picture = side_by_side(panels(count, (300, 400)))
    assert picture.shape[1] == abreast * 400 + (abreast - 1) * GAP
    cell = (picture.shape[0] + GAP) // rows
    for number in range(count):
        top, left = number // abreast * cell, number % abreast * (400 + GAP)
        assert (picture[top + cell - GAP - 300 : top + cell - GAP, left : left + 400] == 10 * number).all()
        assert (picture[top : top + cell - GAP - 300, left : left + 400] < 128).any()  # its head line


def test_large_panels_are_made_smaller_together() -> None:
    assert side_by_side(panels(2, (3000, 4000))).shape[1] == 2 * SIDE + GAP
