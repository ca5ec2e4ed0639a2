from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finders import found_with
from maskbench.evaluation.bootstrap import whole_ap
from maskbench.study.uncertainty import assess


@pytest.fixture(scope="module")
def three():
    return assess({"weak": [found_with(0.5, 1)], "good": [found_with(0.8, 2)], "as good": [found_with(0.8, 3)]})


def test_intervals_hold_the_estimate_and_are_as_wide_as_chance_makes_them(three):
    low, high = three.intervals["weak"]
    assert low < whole_ap(found_with(0.5, 1)) < high
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
    shares = {"best": (0.82, 5), "middle": (0.75, 9), "worst": (0.70, 7)}
    found = assess({name: [found_with(share, seed)] for name, (share, seed) in shares.items()})
    assert found.letters == {"best": "a", "middle": "ab", "worst": "b"}


def test_many_rows_that_cannot_be_told_apart_share_one_letter_at_once():
    found = assess({str(number): [found_with(0.5, 1, images=5)] for number in range(40)})
    assert set(found.letters.values()) == {"a"}
    assert found.draws <= 4000


def test_draws_without_an_object_are_left_out_and_nothing_to_find_is_no_uncertainty():
    few = found_with(0.8, 1, images=5)
    first, right = few.truth_image == 0, few.right & (few.image == 0)[:, None, None]
    truths = {name: getattr(few, name)[first] for name in ("truth_image", "truth_label", "counted")}
    one = replace(few, right=right, wrong=~right, **truths)
    found = assess({"a": [one]})
    assert 0.5 < found.draws / 1000 < 0.8, "the image with objects is in 1 − 0.8⁵ of the draws"
    nothing = {name: values[:0] for name, values in truths.items()}
    none = replace(few, right=np.zeros_like(right), **nothing)
    assert assess({"a": [none]}) is None


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
