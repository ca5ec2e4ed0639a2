from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskbench.ops.flows import flows, followed, sinks


def discs(size: int, *circles: tuple[int, int, int]) -> Tensor:
    """Discs of (row, column, radius), the later over the earlier."""
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    cells = torch.full((size, size), -1)
    for number, (y, x, radius) in enumerate(circles):
        cells[(row - y) ** 2 + (column - x) ** 2 <= radius**2] = number
    return cells


def spread_one_by_one(cells: Tensor) -> Tensor:
    """The paper's simulation for one object after the other, cell by cell."""
    field = torch.zeros(2, *cells.shape)
    for number in range(int(cells.max()) + 1):
        own = [tuple(cell) for cell in (cells == number).nonzero().tolist()]
        middle = [sorted(cell[axis] for cell in own)[(len(own) - 1) // 2] for axis in (0, 1)]
        source = min(own, key=lambda cell: (cell[0] - middle[0]) ** 2 + (cell[1] - middle[1]) ** 2)
        extent = [max(cell[axis] for cell in own) - min(cell[axis] for cell in own) + 1 for axis in (0, 1)]
        heat = dict.fromkeys(own, 0.0)
        for _ in range(2 * sum(extent)):
            heat[source] += 1
            heat = {
                (y, x): sum(heat.get((y + dy, x + dx), 0.0) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
                for y, x in own
            }
        warm = {cell: torch.tensor(value, dtype=torch.float64).log1p().item() for cell, value in heat.items()}
        for y, x in own:
            here = warm[y, x]
            climb = torch.tensor(
                [
                    warm.get((y + 1, x), here) - warm.get((y - 1, x), here),
                    warm.get((y, x + 1), here) - warm.get((y, x - 1), here),
                ],
                dtype=torch.float64,
            )
            # on the very top there is no way up, and what is left of one is rounding
            field[:, y, x] = climb / climb.norm() if climb.norm() > 1e-9 else torch.nan
    return field


class TestFlows:
    def test_is_what_the_paper_simulates(self) -> None:
        cells = discs(14, (4, 4, 4), (9, 9, 3))
        assert int(cells.max()) == 1
        expected = spread_one_by_one(cells)
        known = ~expected.isnan()
        assert (~known).sum() <= 4
        torch.testing.assert_close(flows(cells[None])[0][known], expected[known], atol=1e-3, rtol=0)

    def test_leads_to_the_middle_and_is_nothing_outside(self) -> None:
        cells = discs(32, (15, 15, 9))
        field = flows(cells[None])[0]
        assert (field[:, cells < 0] == 0).all()
        away = torch.stack(torch.meshgrid(15.0 - torch.arange(32), 15.0 - torch.arange(32), indexing="ij"))
        far = (cells >= 0) & (away.norm(dim=0) > 2)
        along = (field * away).sum(dim=0) / away.norm(dim=0).clamp(min=1)
        assert along[far].min() > 0.85

    def test_images_know_nothing_of_each_other(self) -> None:
        one, other = discs(24, (8, 8, 5), (8, 17, 5)), discs(24, (14, 12, 6))
        both = flows(torch.stack([one, other]))
        torch.testing.assert_close(both[0], flows(torch.stack([one, one]))[0])
        assert (both[1][:, other < 0] == 0).all()

    def test_the_ends_of_a_rod_and_of_a_horseshoe_flow_too(self) -> None:
        """All the way to one sink, however far it is and tiny the heat."""
        rod, horseshoe = torch.full((24, 64), -1), torch.full((24, 64), -1)
        rod[10, 4:60] = 0
        horseshoe[2:5, 4:60] = horseshoe[18:21, 4:60] = 0
        horseshoe[2:21, 57:60] = 0
        for cells in (rod, horseshoe):
            field, inside = flows(cells[None])[0], cells >= 0
            assert (inside & (field.norm(dim=0) < 0.5)).sum() <= 2
            ends = followed(field, inside, steps=600)
            assert len(sinks(ends, cells.shape, window=5, least=4)) == 1

    @pytest.mark.parametrize("cells", [torch.full((1, 8, 8), -1), torch.full((2, 4, 4), -1)])
    def test_nothing_flows_where_nothing_is(self, cells: Tensor) -> None:
        assert (flows(cells) == 0).all()


class TestFollowing:
    def test_every_cell_of_touching_objects_ends_in_its_own(self) -> None:
        """Two discs that touch, a rod and a corner, of which the last has no centre of mass inside."""
        cells = discs(64, (20, 20, 10), (20, 40, 10))
        cells[48:53, 6:56] = 2
        cells[28:44, 4:8] = 3
        cells[40:44, 4:24] = 3
        field, inside = flows(cells[None])[0], cells >= 0
        ends = followed(field, inside, steps=200)
        found = sinks(ends, cells.shape, window=5, least=4)
        assert len(found) == 4
        member = torch.cdist(ends, found).argmin(dim=1)
        for number in range(4):
            assert len(member[cells[inside] == number].unique()) == 1

    def test_what_flows_nowhere_stays(self) -> None:
        inside = discs(16, (8, 8, 3)) >= 0
        assert torch.equal(followed(torch.zeros(2, 16, 16), inside, steps=20), inside.nonzero().float())

    def test_few_ends_are_no_sink(self) -> None:
        ends = torch.tensor([[2.0, 2.0], [2.2, 2.0], [2.0, 2.4], [12.0, 12.0]])
        assert sinks(ends, torch.Size((16, 16)), window=5, least=3).tolist() == [[2.0, 2.0]]
        assert len(sinks(ends, torch.Size((16, 16)), window=5, least=1)) == 2
        assert len(sinks(ends[:0], torch.Size((16, 16)), window=5, least=1)) == 0

    def test_equally_many_ends_side_by_side_are_one_sink(self) -> None:
        ends = torch.tensor([[2.0, 2.0], [2.0, 3.0], [3.0, 2.0], [3.0, 3.0]])
        assert len(sinks(ends, torch.Size((16, 16)), window=5, least=1)) == 1
