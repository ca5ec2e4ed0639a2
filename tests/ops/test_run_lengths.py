from __future__ import annotations

import time
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import pytest

from maskbench.ops.run_lengths import read_runs


def test_runs_by_hand() -> None:
    assert read_runs([2, 3, 1], (2, 3)).tolist() == [2, 3, 1]
    assert read_runs([0, 6], (2, 3)).tolist() == [0, 6]
    assert read_runs("231", (2, 3)).tolist() == [2, 3, 1]
    # one character holds −16 to 15, and the fourth run is the difference to the second
    assert read_runs("2310", (3, 3)).tolist() == [2, 3, 1, 3]
    assert read_runs("231N", (1, 7)).tolist() == [2, 3, 1, 1]
    assert read_runs(b"P1", (4, 8)).tolist() == [32]  # 0, and more to come; 1 × 32


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (300, 400)])
def test_strings_are_read_as_pycocotools_writes_them(size: tuple[int, int]) -> None:
    for share in (0.0, 0.02, 0.5, 1.0):
        mask = np.random.default_rng(0).random(size) < share
        rle = rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8))
        runs = read_runs(rle["counts"], size)
        np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs).reshape(size[::-1]).T, mask)
        np.testing.assert_array_equal(read_runs(rle["counts"].decode(), size), runs)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([3, 4], "cover 7 pixels, but the photo of 10 x 10 has 100"),
        ("", "cover 0 pixels"),
        ([200], "a run covers 200 pixels"),
        ([110, -10], "a run covers 110 pixels"),
        ([50, -1, 51], "a run covers -1 pixels"),
        ([10**30, 0], "a run covers 1000"),
        ([99.5, 0.5], r"whole numbers, found 99\.5"),
        ([True, 99], "whole numbers, found True"),
        ([[100]], r"whole numbers, found \[100\]"),
        (["100"], "whole numbers, found '100'"),
        (None, "a list or a string, found NoneType"),
        (3.5, "a list or a string, found float"),
        ("T3!", "no run length is written with the character '!'"),
        ("T3\x7f", "no run length is written with the character"),
        ("T3é", "ordinal not in range"),
        (b"T3\xff", "no run length is written with the character"),
        ("T3T", "ends within a run length"),
        ("o" * 12 + "0", "longer than any photo"),
        ("ooooooo0", "a run covers 34359738367 pixels"),
        ("N0", "a run covers -2 pixels"),
    ],
)
def test_what_is_no_mask_is_refused(counts: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_runs(counts, (10, 10))


def test_a_long_string_takes_time_by_its_length_alone() -> None:
    """Numbers as long as the string would take its square."""
    began = time.process_time()
    for hostile in ("o" * 2_000_000, "0" * 2_000_000, "ooooooo0" * 250_000, "n" * 2_000_000 + "0"):
        with pytest.raises(ValueError, match=r"cover|within|longer"):
            read_runs(hostile, (100, 100))
    assert time.process_time() - began < 5
