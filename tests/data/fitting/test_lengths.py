from __future__ import annotations

import numpy as np
import pytest

from maskbench.data.fitting.lengths import fit_bump, fit_farthest, fit_reach, fit_smallest, fit_steps, near


def test_a_twentieth_may_be_nearer() -> None:
    assert near(np.arange(101.0)) == 5
    assert near(np.zeros(0)) == np.inf


@pytest.mark.parametrize(("distance", "reach"), [(3, 1), (8, 1), (8.1, 2), (12, 2), (13, 3), (100, 5), (np.inf, 5)])
def test_two_peaks_so_far_apart_both_stay(distance: float, reach: int) -> None:
    """Cells are 4 px wide, and what lies within the reach of another is dropped."""
    found = fit_reach(distance, 4, most=5)
    assert found == reach
    assert found < distance / 4 or found == 1


def test_bumps_leave_a_dip_between_them() -> None:
    assert [fit_bump(distance, 4, most=8.0) for distance in (3, 10, 13, 50, np.inf)] == [4, 5, 6.5, 8, 8]


@pytest.mark.parametrize(("area", "cells"), [(16, 2), (64, 2), (160, 5), (10_000, 16)])
def test_an_instance_has_half_the_cells_of_the_smallest_objects(area: float, cells: int) -> None:
    assert fit_smallest(np.full(10, float(area)), 4) == cells


def test_steps_are_enough_for_the_way_to_the_middle() -> None:
    assert fit_steps(np.full((10, 2), 800.0), 4) == 200  # as in the paper, for objects as large as the photo
    assert fit_steps(np.full((10, 2), 30.0), 4) == 20
    assert fit_steps(np.array([[30.0, 30.0]] * 1000 + [[900.0, 900.0]]), 4) == 20  # one in a thousand may be cut
    assert fit_steps(np.full((10, 2), 9000.0), 4) == 400


def test_papers_locations_are_those_of_their_median_object() -> None:
    assert fit_farthest(86, (8, 16, 32, 64)) == [[0, 64], [64, 128], [128, 256], [256, 1e8]]
    assert fit_farthest(20, (4, 8, 16, 32, 64)) == [[0, 16], [16, 32], [32, 64], [64, 128], [128, 1e8]]
    assert fit_farthest(5, (8, 16)) == [[0, 24], [24, 1e8]]
