from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from maskbench.ops.assign import IGNORED, NEGATIVE, Matcher, Sampler, grid_cells
from maskbench.structures import Masks

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


class TestMatcher:
    truth = boxes((0, 0, 10, 10), (100, 0, 110, 10))

    def test_positive_ignored_and_negative(self) -> None:
        # Overlaps with the first box: 0.8, exactly the bounds of 0.5 and 0.2, and 0.1.
        rows = boxes((0, 0, 8, 10), (0, 0, 5, 10), (0, 0, 2, 10), (0, 0, 1, 10), (100, 0, 110, 9))
        assert Matcher(0.5, 0.2)(rows, self.truth).tolist() == [0, 0, IGNORED, NEGATIVE, 1]

    def test_a_box_takes_what_it_overlaps_most(self) -> None:
        rows = boxes((0, 0, 4, 10), (0, 0, 4, 10), (0, 0, 3, 10), (100, 0, 101, 10))
        assert Matcher(0.7, 0.3, low_quality=0.3)(rows, self.truth).tolist() == [0, 0, IGNORED, NEGATIVE]
        assert Matcher(0.7, 0.3)(rows, self.truth).tolist() == [IGNORED, IGNORED, IGNORED, NEGATIVE]

    def test_of_two_boxes_that_take_a_row_the_last_has_it(self) -> None:
        rows = boxes((0, 0, 10, 10))
        truth = boxes((0, 0, 10, 9), (0, 0, 10, 5), (50, 50, 60, 60))  # overlaps of 0.9 and 0.5
        assert Matcher(0.7, 0.3, low_quality=0.3)(rows, truth).tolist() == [1]
        assert Matcher(0.7, 0.3)(rows, truth).tolist() == [0]

    def test_it_is_the_rule_in_a_loop(self) -> None:
        corner = torch.rand(300, 2) * 80
        rows = torch.cat([corner, corner + 5 + torch.rand(300, 2) * 30], dim=1)
        truth, overlap = rows[::60] + torch.randn(5, 4), None
        overlap = box_iou(rows, truth)
        expected = []
        for row in overlap:
            best = row.max()
            expected.append(int(row.argmax()) if best >= 0.6 else IGNORED if best >= 0.4 else NEGATIVE)
        for box in range(5):
            for row in range(300):
                if overlap[row, box] == overlap[:, box].max() and overlap[row, box] >= 0.2:
                    expected[row] = box
        assert Matcher(0.6, 0.4, low_quality=0.2)(rows, truth).tolist() == expected

    def test_nothing(self) -> None:
        matcher = Matcher(0.7, 0.3, low_quality=0.3)
        assert matcher(self.truth, boxes()).tolist() == [NEGATIVE, NEGATIVE]
        assert matcher(boxes(), self.truth).tolist() == []


class TestSampler:
    @staticmethod
    def matches(positive: int, negative: int, ignored: int = 50) -> Tensor:
        rows = torch.tensor([3] * positive + [NEGATIVE] * negative + [IGNORED] * ignored)
        return rows[torch.randperm(len(rows))]

    @pytest.mark.parametrize(
        ("positive", "negative", "drawn"),
        [
            (100, 1000, (16, 48)),
            (5, 1000, (5, 59)),
            (100, 20, (16, 20)),
            (0, 1000, (0, 64)),
            (3, 2, (3, 2)),
            (0, 0, (0, 0)),
        ],
    )
    def test_counts(self, positive: int, negative: int, drawn: tuple[int, int]) -> None:
        matches = self.matches(positive, negative)
        found = Sampler(64, 0.25)(matches)
        assert (len(found[0]), len(found[1])) == drawn
        assert (matches[found[0]] >= 0).all()
        assert (matches[found[1]] == NEGATIVE).all()
        assert all(len(rows.unique()) == len(rows) for rows in found)

    def test_draws_differ(self) -> None:
        matches = self.matches(100, 1000)
        first, second = Sampler(64, 0.5)(matches), Sampler(64, 0.5)(matches)
        assert set(first[0].tolist()) != set(second[0].tolist())


class TestGridCells:
    @staticmethod
    def instances(count: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Rectangles with a bite taken out of most, so that the mass lies off the middle of the box."""
        masks = torch.zeros(count, *size, dtype=torch.bool)
        for mask in masks:
            height, width = (int(torch.randint(2, side, ())) for side in size)
            top, left = (
                int(torch.randint(0, side - part, ())) for side, part in zip(size, (height, width), strict=True)
            )
            mask[top : top + height, left : left + width] = True
            mask[top : top + height // 2, left : left + int(torch.randint(0, width, ()))] = False
        return masks, Masks(masks).boxes()

    @staticmethod
    def one_by_one(
        masks: Tensor, boxes: Tensor, grids: tuple[int, ...], ranges: tuple[tuple[float, float], ...], sigma: float
    ) -> set[tuple[int, int, int, int]]:
        """The rule for one instance after the other, in single precision as the reference computes it."""
        single, (height, width) = np.float32, masks.shape[1:]
        found = set()
        for instance, (mask, box) in enumerate(zip(masks.numpy(), boxes.numpy(), strict=True)):
            rows, columns = np.nonzero(mask)
            y, x = single(rows.sum()) / single(len(rows)), single(columns.sum()) / single(len(columns))
            half_height, half_width = (single(0.5 * sigma) * side for side in (box[3] - box[1], box[2] - box[0]))
            for level, (side, (lower, upper)) in enumerate(zip(grids, ranges, strict=True)):
                if not lower <= np.sqrt((box[2] - box[0]) * (box[3] - box[1])) <= upper:
                    continue

                def cell(position: float, extent: int, side: int = side) -> int:
                    return int(np.trunc(single(position) / single(extent) / single(1 / side)))

                top = max(0, cell(y - half_height, height), cell(y, height) - 1)
                bottom = min(side - 1, cell(y + half_height, height), cell(y, height) + 1)
                left = max(0, cell(x - half_width, width), cell(x, width) - 1)
                right = min(side - 1, cell(x + half_width, width), cell(x, width) + 1)
                for row in range(top, bottom + 1):
                    found |= {(instance, level, row, column) for column in range(left, right + 1)}
        return found

    @pytest.mark.parametrize("size", [(128, 128), (256, 320), (96, 544)])
    def test_it_is_the_rule_for_one_instance_after_the_other(self, size: tuple[int, int]) -> None:
        masks, boxes = self.instances(60, size)
        for sigma in (0.2, 0.5):
            cells = grid_cells(masks, boxes, GRIDS, RANGES, sigma)
            found = list(zip(*(column.tolist() for column in cells), strict=True))
            assert len(set(found)) == len(found)
            assert set(found) == self.one_by_one(masks, boxes, GRIDS, RANGES, sigma)

    def test_on_an_edge_between_two_cells(self) -> None:
        """Index 16 of 128 pixels is 5 of 40 cells exactly, a bar of one pixel there lies in the fifth."""
        masks = torch.zeros(1, 128, 128, dtype=torch.bool)
        masks[0, 16, 16] = True
        cells = grid_cells(masks, Masks(masks).boxes(), (40,), ((1, 96),), sigma=0.0)
        assert (cells.row.tolist(), cells.column.tolist()) == ([5], [5])

    def test_at_most_nine_cells_around_the_centre(self) -> None:
        masks = torch.ones(1, 64, 64, dtype=torch.bool)
        cells = grid_cells(masks, Masks(masks).boxes(), (16,), ((1, 96),), sigma=1.0)
        assert list(zip(cells.row.tolist(), cells.column.tolist(), strict=True)) == [
            (row, column) for row in (6, 7, 8) for column in (6, 7, 8)
        ]

    @pytest.mark.parametrize(("side", "levels"), [(47, [0]), (48, [0, 1]), (96, [0, 1, 2]), (97, [1, 2])])
    def test_ranges_include_both_ends(self, side: int, levels: list[int]) -> None:
        masks = torch.zeros(1, 128, 128, dtype=torch.bool)
        masks[0, :side, :side] = True
        cells = grid_cells(masks, Masks(masks).boxes(), GRIDS, RANGES)
        assert cells.level.unique().tolist() == levels

    def test_nothing(self) -> None:
        cells = grid_cells(torch.zeros(0, 64, 64, dtype=torch.bool), boxes(), GRIDS, RANGES)
        assert [len(column) for column in cells] == [0, 0, 0, 0]

    def test_a_range_for_each_grid(self) -> None:
        with pytest.raises(ValueError, match=r"one range per grid: grids \[4, 2\] but ranges \[\(1, 9\)\]"):
            grid_cells(torch.zeros(0, 8, 8, dtype=torch.bool), boxes(), (4, 2), ((1, 9),))


def test_a_row_that_a_box_claims_learns_that_box_or_the_one_it_overlaps_most() -> None:
    """The small box overlaps no row more than the large one's, and claims it all the same."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 8, 8]])
    rows = torch.tensor([[0.0, 0, 20, 18], [40, 40, 60, 60]])
    for takes, expected in ((True, [1, NEGATIVE]), (False, [0, NEGATIVE])):
        assert Matcher(0.7, 0.3, low_quality=0.1, takes=takes)(rows, boxes).tolist() == expected
