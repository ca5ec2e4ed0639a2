"""What a paper's own tests are: maskbench's contract of every method, and what can be computed by hand of this one."""

from __future__ import annotations

import torch

from maskbench.testing import contract
from paper.method import true_cores


class TestContract(contract.Contract):
    configs = "pkg://paper.conf"


def test_cores_of_objects_that_touch_do_not() -> None:
    """Two squares side by side, of 6 × 6 cells: three steps deep, so that a core begins at the second."""
    cells = torch.full((8, 14), -1)
    cells[1:7, 1:7], cells[1:7, 7:13] = 0, 1
    wanted = torch.zeros(8, 14, dtype=torch.bool)
    wanted[2:6, 2:6] = wanted[2:6, 8:12] = True
    assert torch.equal(true_cores(cells, deep=0.5), wanted)


def test_an_object_of_one_cell_is_its_core() -> None:
    cells = torch.tensor([[-1, -1, -1], [-1, 0, -1], [-1, -1, -1]])
    assert torch.equal(true_cores(cells, deep=0.5), cells >= 0)
    assert not true_cores(torch.full((3, 3), -1), deep=0.5).any()
