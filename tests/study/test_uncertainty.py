from __future__ import annotations

import pytest
from finders import found_with

from maskbench.study.uncertainty import assess


@pytest.fixture(scope="module")
def three():
    return assess({"weak": [found_with(0.5, 1)], "good": [found_with(0.8, 2)], "as good": [found_with(0.8, 3)]})


def test_intervals_hold_the_estimate_and_are_as_wide_as_chance_makes_them(three):
    low, high = three.intervals["weak"]
    # the share of objects found varies by √(p q / n) = 0.023; AP, which goes with its square or so, by more
    assert 0.05 < high - low < 0.2
    assert all(0 <= low < high <= 1 for low, high in three.intervals.values())
    assert three.draws == 1000


def test_pairs_are_told_apart_or_not(three):
    assert three.between("weak", "good").apart
    assert three.between("good", "weak").first == "good"
    assert not three.between("good", "as good").apart
    assert three.between("good", "nobody") is None
    for pair in three.pairs:
        assert pair.low < pair.difference < pair.high
        assert pair.difference >= 0
        assert pair.apart == (pair.low > 0)


def test_rows_that_share_a_letter_cannot_be_told_apart(three):
    assert three.letters == {"good": "a", "as good": "a", "weak": "b"}


def test_a_row_between_two_has_both_letters():
    rows = {name: [found_with(share, 5)] for name, share in (("best", 0.74), ("middle", 0.70), ("worst", 0.66))}
    found = assess(rows)
    pairs = {(pair.first, pair.second): pair.apart for pair in found.pairs}
    assert found.letters["best"] != found.letters["worst"]
    for (first, second), apart in pairs.items():
        assert apart != bool(set(found.letters[first]) & set(found.letters[second]))


def test_seeds_that_disagree_keep_methods_together():
    steady = assess({"one": [found_with(0.8, 2)], "two": [found_with(0.7, 3)]})
    assert steady.pairs[0].apart
    seeds = {"one": [found_with(p, s) for s, p in enumerate((0.6, 0.8, 0.95))], "two": [found_with(0.7, 3)] * 3}
    assert not assess(seeds).pairs[0].apart


def test_more_pairs_take_more_draws():
    rows = {str(number): [found_with(0.5, number, images=5)] for number in range(10)}
    assert assess(rows).draws == 45 * 40


def test_one_row_alone_has_an_interval_and_nobody_to_be_compared_with():
    found = assess({"alone": [found_with(0.5, 1)]})
    assert (found.pairs, found.letters) == ((), {"alone": "a"})
    assert assess({}) is None


def test_runs_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"the same images, found \[5, 6\]"):
        assess({"a": [found_with(0.5, 1, images=5)], "b": [found_with(0.5, 1, images=6)]})
