from __future__ import annotations

import torch

from maskbench.ops.windows import windows


def test_a_window_is_cut_around_its_cell_of_its_level_and_image() -> None:
    fine = torch.arange(2 * 3 * 4.0).view(2, 1, 3, 4)
    coarse = 100 + torch.arange(2 * 2 * 2.0).view(2, 1, 2, 2)
    # 12 cells of the fine level, then 4 of the coarse one, then the same of the second image
    cells = torch.tensor([13, 16 + 5, 3])
    pieces, inside = windows([fine, coarse], cells, reach=1)
    assert pieces[1, 0].tolist() == [[12, 13, 14], [16, 17, 18], [20, 21, 22]]
    assert inside[1].all()
    assert inside[0, 0].int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert pieces[0][inside[0]].tolist() == [100, 101, 102, 103]
    assert inside[2, 0].int().tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert pieces[2][inside[2]].tolist() == [2, 3, 6, 7]


def test_nothing_asked_nothing_found() -> None:
    pieces, inside = windows([torch.zeros(1, 5, 3, 3)], torch.zeros(0, dtype=torch.long), reach=2)
    assert pieces.shape == (0, 5, 5, 5)
    assert inside.shape == (0, 1, 5, 5)
