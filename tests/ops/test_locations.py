from __future__ import annotations

import pytest
import torch

from maskbench.errors import ConfigError
from maskbench.ops.locations import Locations, centredness

RANGES = ((0.0, 16.0), (16.0, 64.0))


@pytest.fixture
def locations() -> Locations:
    """Levels of strides 8 and 16 for an image of 32 rows and 48 columns: 4 × 6 and 2 × 3 cells."""
    return Locations.of([torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 2, 3)], (8, 16))


def test_middles_of_cells_row_by_row(locations: Locations) -> None:
    assert locations.point[:2].tolist() == [[4, 4], [12, 4]]
    assert locations.point[6].tolist() == [4, 12]
    assert locations.point[24:26].tolist() == [[8, 8], [24, 8]]
    assert torch.bincount(locations.level).tolist() == [24, 6]
    assert locations.stride[[0, 24]].tolist() == [8, 16]


def test_sides_and_boxes_are_inverse(locations: Locations) -> None:
    box = torch.tensor([[0.0, 4.0, 20.0, 12.0]]).expand(30, 4)
    assert locations.sides(box)[1].tolist() == [1.5, 0, 1, 1]
    torch.testing.assert_close(locations.boxes(locations.sides(box)), box.clone())


class TestOwners:
    def test_near_the_middle_of_a_box_of_the_levels_size(self, locations: Locations) -> None:
        """A box of 16 px around (16, 16): four cells of stride 8 lie in it, and no side is far enough for the other."""
        owner = locations.owners(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), RANGES, radius=1.5)
        rows = (owner >= 0).nonzero()[:, 0]
        assert locations.point[rows].tolist() == [[12, 12], [20, 12], [12, 20], [20, 20]]

    def test_the_radius(self, locations: Locations) -> None:
        wide = torch.tensor([[0.0, 0.0, 48.0, 32.0]])
        near = locations.owners(wide, RANGES, radius=0.6)
        assert locations.point[near >= 0].tolist() == [[24, 8], [24, 24]]
        assert (locations.owners(wide, RANGES, radius=10.0)[24:] >= 0).all()

    def test_of_several_the_smallest(self, locations: Locations) -> None:
        boxes = torch.tensor([[4.0, 4.0, 28.0, 28.0], [8.0, 8.0, 24.0, 24.0]])
        for order, small in (([0, 1], 1), ([1, 0], 0)):
            owner = locations.owners(boxes[order], ((0.0, 24.0), (24.0, 64.0)), radius=1.5)
            assert set(owner[locations.level == 0].tolist()) <= {-1, small}

    def test_nobody(self, locations: Locations) -> None:
        assert set(locations.owners(torch.zeros(0, 4), RANGES, radius=1.5).tolist()) == {-1}

    def test_a_range_a_level(self, locations: Locations) -> None:
        with pytest.raises(ConfigError, match="2 levels but ranges"):
            locations.owners(torch.zeros(0, 4), RANGES[:1], radius=1.5)


def test_centredness_by_hand() -> None:
    sides = torch.tensor([[2.0, 2, 2, 2], [1, 2, 4, 2], [0, 1, 4, 1], [1, 1, 4, 4]])
    assert centredness(sides).tolist() == pytest.approx([1, 0.5, 0, 0.25])
