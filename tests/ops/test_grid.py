from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.ops.grid import Claims, Grids, cell_scores, fitting, flat, grid_cells, grid_losses, head_levels, resized
from maskbench.ops.suppress import points_nms
from maskbench.structures import Batch, Frame, Instances, Masks

GRIDS = (40, 36, 24, 16, 12)
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))


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
        cells = grid_cells(torch.zeros(0, 64, 64, dtype=torch.bool), torch.zeros(0, 4), GRIDS, RANGES)
        assert [len(column) for column in cells] == [0, 0, 0, 0]


def instances(*boxes: tuple[int, int, int, int]) -> Instances:
    """Rectangles (top, left, bottom, right) in 64 × 64 pixels, each of a class of its own."""
    masks = torch.zeros(len(boxes), 64, 64, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.arange(len(boxes)), torch.ones(len(boxes)))


def pairs(claims: Claims) -> set[tuple[int, int]]:
    return set(zip(claims.cell.tolist(), claims.instance.tolist(), strict=True))


def grids(shared: str = "reference") -> Grids:
    """Cells of 16 pixels for objects up to 32, and of 32 pixels for those from 24 on."""
    return Grids((4, 2), (8, 16), ((1, 32), (24, 64)), shared=shared)


class TestGrids:
    def test_cells_are_numbered_level_by_level_and_row_by_row(self) -> None:
        # Four pixels in the cell in row 0 and column 2; 28 pixels around 47.5, of which 44.7 to 50.3 count.
        claims = grids().claims(instances((6, 38, 10, 42), (34, 34, 62, 62)))
        assert pairs(claims) == {(2, 0), (10, 1), (11, 1), (14, 1), (15, 1), (16 + 3, 1)}

    def test_a_number_leads_back_to_its_level(self) -> None:
        cells = torch.tensor([19, 0, 15, 16, 3])
        assert grids().starts == (0, 16, 20)
        assert grids().level_of(cells).tolist() == [1, 0, 0, 1, 0]
        assert grids().stride_of(cells).tolist() == [16, 8, 8, 16, 8]
        (first, own), (second, others) = grids().split(cells)
        assert (first.tolist(), own.tolist()) == ([1, 2, 4], [0, 15, 3])
        assert (second.tolist(), others.tolist()) == ([0, 3], [3, 0])

    @pytest.mark.parametrize(("shared", "winners"), [("reference", (1, 1)), ("smallest", (1, 0))])
    def test_a_cell_that_two_claim(self, shared: str, winners: tuple[int, int]) -> None:
        """A square of 16 and one of 8 pixels around the same cell, in both orders, and one apart from them."""
        large, small, apart = (0, 0, 16, 16), (4, 4, 12, 12), (36, 36, 44, 44)
        for order, winner in zip(((large, small, apart), (small, large, apart)), winners, strict=True):
            target = instances(*order)
            claims = grids(shared).claims(target)
            assert pairs(claims) == {(0, 0), (0, 1), (10, 2)}
            owners = grids(shared).owners(claims, target)
            assert pairs(owners) == {(0, winner), (10, 2)}
            labels = grids(shared).labels(owners, target, background=9)
            assert labels.tolist() == [winner, *[9] * 9, 2, *[9] * 9]

    def test_how_far_objects_come(self) -> None:
        """Two share one cell, one has a cell on one level and four cells on the other, and one is too large for any."""
        target = instances((0, 0, 16, 16), (4, 4, 12, 12), (34, 34, 62, 62), (0, 0, 64, 64))
        wide = Grids((4, 2), (8, 16), ((1, 32), (24, 50)))
        assert wide.reach(target) == {
            "a level of its size": (3, 4),
            "a cell": (3, 4),
            "a cell that is left to it": (2, 4),
            "cells of one object, 4 a side": (4, 5),
            "cells of one object, 2 a side": (1, 1),
        }
        assert set(wide.reach(instances()).values()) == {(0, 0)}
        encoded = Instances(Masks(target.masks.rle()), target.boxes, target.labels, target.scores)
        assert wide.reach(encoded) == wide.reach(target)

    def test_an_object_is_drawn_by_the_cell_that_would_be_ranked_highest(self) -> None:
        """The third object has four cells on the first level and one on the second, the last none at all."""
        target = instances((0, 0, 16, 16), (4, 4, 12, 12), (34, 34, 62, 62), (0, 0, 64, 64))
        target = replace(target, labels=torch.tensor([0, 0, 1, 0]))
        wide = Grids((4, 2), (8, 16), ((1, 32), (24, 50)))
        cells = [cell for cell, instance in pairs(wide.claims(target)) if instance == 2]
        scores, maps = torch.full((20, 2), 0.5), torch.full((20, 16, 16), 0.6)
        scores[cells, 0] = 1.0  # of another class than the third's
        scores[cells[0], 1], maps[cells[1], 9:12, 9:12] = 0.7, 0.9  # surer of its class, and of its mask
        scores[cells[2], 1], maps[cells[2]] = 0.6, 0.9  # the highest product
        maps[cells[2], :8] = 0
        found = wide.drawn(target, Frame(1, (64, 64), (64, 64)), scores, maps.__getitem__, 4)
        torch.testing.assert_close(found.scores, torch.tensor([0.3, 0.3, 0.54]))
        assert found.labels.tolist() == [0, 0, 1]
        assert found.boxes[2].tolist() == [0, 32, 64, 64]
        nothing = wide.drawn(instances(), Frame(1, (64, 64), (64, 64)), scores, maps.__getitem__, 4)
        assert len(nothing) == 0

    def test_who_is_as_large_and_lies_as_well_wins_in_any_order(self) -> None:
        lying, standing = (6, 0, 10, 16), (0, 6, 16, 10)
        winners = []
        for order in ((lying, standing), (standing, lying)):
            target = instances(*order)
            (winner,) = grids("smallest").owners(grids().claims(target), target).instance.tolist()
            winners.append(order[winner])
        assert winners[0] == winners[1]

    def test_nothing(self) -> None:
        nothing = instances()
        for shared in ("reference", "smallest"):
            owners = grids(shared).owners(grids(shared).claims(nothing), nothing)
            assert pairs(owners) == set()
            assert grids(shared).labels(owners, nothing, background=3).tolist() == [3] * 20
            assert [len(rows) for rows, _ in grids(shared).split(owners.cell)] == [0, 0]

    def test_a_level_draws_at_half_its_stride(self) -> None:
        """A hole of 4 pixels that begins in the middle of a cell of 8 is seen at stride 4 alone."""
        target = instances((0, 0, 32, 32), (0, 0, 64, 64))
        masks = target.masks.dense()
        masks[:, 12:16, 12:16] = False
        frames = (Frame(1, photo=(64, 64), resized=(64, 64)), Frame(2, photo=(30, 40), resized=(60, 64)))
        batch = Batch(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), (target, instances()), frames)
        found, nothing = grids().redrawn(batch)
        drawn = found.masks.dense()
        assert torch.equal(drawn[:, 14, 14], torch.tensor([False, True]))
        assert torch.equal(drawn[:, 24, 24], torch.tensor([True, True]))
        assert (len(nothing), nothing.masks.size) == (0, (30, 40))

    def test_masks_of_two_levels_meet_at_one_size(self) -> None:
        """Each cell's mask is as probable as its number is high, on cells of 4 and of 8 pixels."""
        asked = []

        def paint(level: int, cell: Tensor) -> Tensor:
            asked.append((level, cell.tolist()))
            side = (16, 8)[level]
            return (cell / 100)[:, None, None].expand(-1, side, side)

        maps = grids().painted(torch.tensor([17, 3, 15]), (16, 16), paint)
        assert asked == [(0, [3, 15]), (1, [1])]
        wanted = torch.tensor([0.01, 0.03, 0.15])[:, None, None].expand(-1, 16, 16)
        torch.testing.assert_close(maps, wanted)

    def test_a_mask_is_compared_at_half_the_stride_of_its_level(self) -> None:
        """Painted everywhere, a square that covers a quarter of the image costs 1 − 2 · ¼ / (¼ + 1) on every level."""
        target = instances((0, 0, 32, 32))
        owners = Claims(torch.tensor([0, 1, 17]), torch.tensor([0, 0, 0]))
        losses = grids().mask_losses(owners, target, lambda level, cell: torch.ones(len(cell), *[(16, 8)[level]] * 2))
        torch.testing.assert_close(torch.stack(losses), torch.tensor([2 * 0.6, 0.6]), rtol=1e-3, atol=0)

    def test_a_grid_and_a_range_for_each_level(self) -> None:
        with pytest.raises(ConfigError, match=r"2 levels, grids \[4, 2\], ranges \[\(1, 9\)\]"):
            Grids((4, 2), (8, 16), ((1, 9),))

    def test_a_rule_that_nobody_knows(self) -> None:
        with pytest.raises(ConfigError, match=r"shared_cells='largest': expected one of reference, smallest"):
            grids("largest")


class TestLevels:
    def test_the_finest_is_halved_and_the_coarsest_doubled(self) -> None:
        levels = [torch.rand(1, 2, side, 2 * side) for side in (16, 8, 4, 2, 1)]
        found = head_levels(levels)
        assert [tuple(level.shape[2:]) for level in found] == [(8, 16), (8, 16), (4, 8), (2, 4), (2, 4)]
        torch.testing.assert_close(found[0], F.avg_pool2d(levels[0], 2))
        assert all(torch.equal(found[index], levels[index]) for index in (1, 2, 3))

    def test_cells_lie_under_each_other_row_by_row(self) -> None:
        first, second = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 2, 2)
        found = flat([first, second])
        assert found.shape == (2, 20, 3)
        assert torch.equal(found[1, 6], first[1, :, 1, 2])
        assert torch.equal(found[0, 16 + 2], second[0, :, 1, 0])

    def test_scores_with_and_without_nms_among_neighbours(self) -> None:
        logits = [torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)]
        probabilities = [level.sigmoid() for level in logits]
        best = flat([points_nms(level) for level in probabilities])
        # where a sigmoid stands in memory moves its last bit
        torch.testing.assert_close(cell_scores(logits, points=False), flat(probabilities), rtol=1e-6, atol=0)
        torch.testing.assert_close(cell_scores(logits, points=True), best, rtol=1e-6, atol=0)
        assert 0 < (best == 0).sum() < best.numel()

    def test_a_map_of_the_right_size_stays_what_it_is(self) -> None:
        maps = torch.rand(2, 4, 6)
        assert resized(maps, (4, 6)) is maps
        torch.testing.assert_close(resized(maps, (8, 12))[:, 0, 0], maps[:, 0, 0])
        assert resized(maps[:0], (8, 12)).shape == (0, 8, 12)


def test_a_size_fits_the_levels_whose_range_holds_it() -> None:
    boxes = torch.tensor([[0.0, 0, 16, 64], [5, 5, 5, 5], [0, 0, 10, 9]])  # √(16 · 64) = 32
    assert fitting(boxes, ((1, 32), (32, 64))).tolist() == [[True, True], [False, False], [True, False]]


def test_masks_count_by_positive_cells_and_classes_by_one_more() -> None:
    """Two cells of class 0 of two images of five cells, all logits 0; background has the share 1 − α of the loss."""
    logits = [torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 1, 1)]
    labels = [torch.tensor([0, 3, 3, 3, 3]), torch.tensor([3, 3, 3, 3, 0])]
    found = grid_losses(logits, labels, [torch.tensor(0.5), torch.tensor(0.7)], mask_weight=3.0)
    entropy = 0.25 * math.log(2)  # (1 − p)² of p = ½
    wanted = {"mask": 3 * 1.2 / 2, "class": entropy * (2 * 0.25 + 28 * 0.75) / 3}
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(wanted)
