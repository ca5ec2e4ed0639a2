"""Predicted collisions against those that `ops.grid` counts on masks, and what grids follow from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskbench.data.fitting.grids import LOST, MOST, STRIDES, fit_grids, fit_ranges, keeps, lost
from maskbench.data.fitting.seen import Seen
from maskbench.methods.solo import SOLO
from maskbench.ops.grid import Grids, grid_cells
from maskbench.structures import Masks
from planted import Box, objects, scattered

PAPERS = ([40, 36, 24, 16, 12], [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]])


def counted(boxes: list[Box], size: tuple[int, int], sides: list[int], ranges: list[tuple[float, float]]) -> list[int]:
    """How many different cells hold the centres of a level's objects, by the masks that a method learns."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = True
    cells = grid_cells(masks, Masks(masks).boxes(), sides, ranges, sigma=0.0)
    found = set(zip(*(part.tolist() for part in cells[1:]), strict=True))
    return [sum(level == own for level, _, _ in found) for own in range(len(sides))]


def test_levels_are_those_of_the_methods() -> None:
    assert SOLO.strides == STRIDES


@pytest.mark.parametrize("seed", range(4))
def test_collisions_are_those_that_are_counted_on_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, boxes = (96, 160), scattered(rng, (90, 150), 60, (3, 40))
    ranges = [(1, 12), (8, 24), (16, 48), (32, 64), (64, 2048)]
    sides = [13, 9, 6, 4, 3]
    seen = Seen.of(objects([(90, 150)], [boxes]), None, None, 32)
    assert seen.padded.tolist() == [list(size)]
    kept = [keeps(seen, *level) for level in zip(sides, ranges, strict=True)]
    assert [int(own.sum()) for own in kept] == counted(boxes, size, sides, ranges)
    assert min(own.sum() for own in kept[:3]) > 0
    assert lost(seen, sides, ranges) == pytest.approx(1 - np.any(kept, axis=0).sum() / len(boxes))


def test_a_cell_has_one_object_by_hand() -> None:
    """Of three centres in one cell of 32 px the last has it; another photo's has its own."""
    boxes = [[(0, 0, 4, 4), (10, 10, 16, 16), (4, 4, 9, 9), (40, 0, 46, 6)], [(0, 0, 4, 4)]]
    seen = Seen.of(objects([(64, 64)] * 2, boxes), None, None, 32)
    assert keeps(seen, 2, [1, 64]).tolist() == [False, False, True, True, True]
    assert keeps(seen, 2, [1, 4]).tolist() == [True, False, False, False, True]  # of that size there are two
    assert lost(seen, [2], [[1, 64]]) == pytest.approx(0.4)
    assert lost(seen, [2, 2], [[1, 64], [1, 4]]) == pytest.approx(0.2)  # the first has a cell on the other level
    assert lost(seen, [2], [[5, 64]]) == pytest.approx(0.6)  # two fit no level, and one has lost its cell


def test_papers_ranges_are_those_of_their_median_object() -> None:
    seen = Seen.of(objects([(800, 1200)], [[(0, 0, 96, 96)]]), None, None, 32)
    assert fit_ranges(seen) == PAPERS[1]


def test_small_objects_keep_cells_enough_on_the_map_of_their_level() -> None:
    seen = Seen.of(objects([(256, 256)], [[(0, 0, 10, 10)]]), None, None, 32)
    ranges = fit_ranges(seen)
    assert ranges == [[1, 24], [24, 48], [48, 96], [96, 192], [96, 2048]]
    assert all(low >= 3 * stride for (low, _), stride in zip(ranges[1:], STRIDES[1:], strict=True))


@pytest.mark.parametrize("median", [5, 30, 100, 700])
def test_every_size_has_a_level(median: int) -> None:
    seen = Seen.of(objects([(3000, 3000)], [[(0, 0, median, median)]]), None, None, 32)
    ranges = fit_ranges(seen)
    assert all(low <= end for (low, _), (_, end) in zip(ranges[1:], ranges, strict=False))
    assert ranges[0][0] == 1
    assert ranges[-1][1] >= 3000
    Grids(tuple(PAPERS[0]), STRIDES, tuple(map(tuple, ranges)))  # as a method takes them


def test_few_objects_need_no_more_than_their_size_asks_for() -> None:
    seen = Seen.of(objects([(800, 800)], [[(0, 0, 100, 100), (500, 500, 600, 600)]]), None, None, 32)
    assert fit_grids(seen, PAPERS[1]) == [44, 44, 24, 12, 12]  # 2.5 × 800 / 48, / 96, …


def test_crowds_have_finer_grids_where_they_are() -> None:
    rng = np.random.default_rng(0)
    scene = objects([(384, 384)] * 4, [scattered(rng, (384, 384), 250, (8, 20)) for _ in range(4)])
    seen = Seen.of(scene, None, None, 32)
    ranges = fit_ranges(seen)
    grids = fit_grids(seen, ranges)
    assert lost(seen, grids, ranges) <= LOST < lost(seen, [40, 36, 24, 16, 12], ranges)
    assert grids[0] > 40
    assert grids[2:] == [20, 12, 12]  # no object is so large


def test_centres_that_are_one_end_the_search() -> None:
    """No grid tells rings around one middle apart, and none is made finer for them."""
    seen = Seen.of(objects([(64, 64)], [[(10, 10, 20, 20), (8, 8, 22, 22), (5, 5, 25, 25)]]), None, None, 32)
    ranges = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
    grids = fit_grids(seen, ranges)
    assert lost(seen, grids, ranges) == pytest.approx(2 / 3)
    assert grids == [12] * 5


def test_grids_are_bounded() -> None:
    rng = np.random.default_rng(0)
    seen = Seen.of(objects([(2000, 2000)], [scattered(rng, (2000, 2000), 3000, (8, 12))]), None, None, 32)
    assert max(fit_grids(seen, fit_ranges(seen))) <= MOST
