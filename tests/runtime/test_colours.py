from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import torch

from maskbench.runtime.colours import PALETTE, Colours
from painted import squares

CROWD = tuple((y, x) for y in range(0, 80, 10) for x in range(0, 100, 10))
"""Eighty squares, each of which touches up to eight others."""


def test_every_colour_is_far_from_every_other_and_black_is_read_on_it() -> None:
    lab = cv2.cvtColor(np.array([PALETTE], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert min(np.linalg.norm(one - other) for one, other in combinations(lab, 2)) > 35
    assert lab[:, 0].min() > 50


def test_neighbours_differ() -> None:
    of = dict(zip(CROWD, Colours().of(squares(*CROWD, side=10)), strict=True))
    touching = [(a, b) for a, b in combinations(CROWD, 2) if max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 10]
    assert len(touching) > 250
    assert all(of[a] != of[b] for a, b in touching)
    assert len(set(of.values())) == len(PALETTE)


def test_an_instance_keeps_its_colour_whatever_of_lower_score_goes() -> None:
    every = squares(*CROWD, side=10)
    assert Colours().of(every[:30]) == Colours().of(every)[:30]


def test_a_colour_changes_only_if_a_better_neighbour_with_the_preferred_one_goes() -> None:
    every = squares(*CROWD, side=10)
    alone = [Colours().of(every[row : row + 1])[0] for row in range(len(every))]
    crowded = Colours().of(every)
    displaced = [row for row in range(len(every)) if alone[row] != crowded[row]]
    assert 0 < len(displaced) < len(every) / 2
    for row in displaced:
        near = [other for other in range(row) if np.abs(np.subtract(CROWD[row], CROWD[other])).max() <= 20]
        assert alone[row] in [crowded[other] for other in near]
    far = torch.tensor([row for row in range(len(every)) if CROWD[row][1] >= 50 or row == 0])
    assert Colours().of(squares(CROWD[0], CROWD[79], side=10))[1] == alone[79]
    assert len(Colours().of(every[far])) == len(far)


def test_what_an_earlier_method_found_too_keeps_its_colour() -> None:
    first = squares((0, 0), (0, 40), (40, 0))
    moved = squares((41, 2), (2, 1), (50, 70), (1, 40))
    colours = Colours()
    before, after = colours.of(first), colours.of(moved)
    assert [after[row] for row in (1, 3, 0)] == before
    assert colours.of(squares((50, 71))) == after[2:3]  # known from the second method
    # 20 × 20 pixels moved by 12: an IoU of 8 / 32
    assert colours.of(squares((0, 12)))[0] == Colours().of(squares((0, 12)))[0]


def test_an_object_is_met_once_and_by_the_best() -> None:
    colours = Colours()
    (known,) = colours.of(squares((0, 0)))
    twice = colours.of(squares((1, 1), (0, 0)))
    assert twice[0] == known
    assert twice[1] != known


def test_nothing_has_no_colour() -> None:
    colours = Colours()
    assert colours.of(squares()) == []
    colours.of(squares((0, 0)))
    assert colours.of(squares()) == []
