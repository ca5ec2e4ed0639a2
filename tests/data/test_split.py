from __future__ import annotations

from collections import Counter

import pytest

from maskbench.data.coco import Record
from maskbench.data.split import by_hash, first, split_off, take_apart

RECORDS = [Record(image_id, f"{image_id}.png", (10, 10)) for image_id in range(100, 400, 3)]


def test_a_tenth_is_for_tuning_and_none_for_both() -> None:
    train, tune = split_off(RECORDS, 0.1)
    assert (len(train), len(tune)) == (90, 10)
    assert sorted(train + tune) == [record.image_id for record in RECORDS]
    assert train == sorted(train)


def test_the_choice_is_pinned_and_does_not_depend_on_the_order_of_the_file() -> None:
    assert split_off(RECORDS, 0.05)[1] == split_off(RECORDS[::-1], 0.05)[1] == [142, 154, 157, 163, 322]


def test_a_limit_is_nested_and_leaves_tuning_alone() -> None:
    whole, tune = split_off(RECORDS, 0.1)
    few, tune_few = split_off(RECORDS, 0.1, limit=5)
    more, _ = split_off(RECORDS, 0.1, limit=20)
    assert tune_few == tune
    assert len(few) == 5
    assert set(few) < set(more) < set(whole)


def test_small_sets_still_tune_and_still_train() -> None:
    assert [len(part) for part in split_off(RECORDS[:3], 0.1)] == [2, 1]
    assert [len(part) for part in split_off(RECORDS[:1], 0.1)] == [1, 0]
    assert [len(part) for part in split_off(RECORDS[:2], 0.99)] == [1, 1]
    assert [len(part) for part in split_off(RECORDS, 0.0)] == [100, 0]


def test_hash_order_is_not_id_order() -> None:
    ids = [record.image_id for record in by_hash(RECORDS)]
    assert ids != sorted(ids)


def grouped(sizes: list[int]) -> list[Record]:
    """Photos of groups of these sizes, a group's ids far from one another."""
    places = [(group, number) for group, size in enumerate(sizes) for number in range(size)]
    return [
        Record(1000 * number + group, f"{number}-{group}.png", (10, 10), f"group {group}") for group, number in places
    ]


@pytest.mark.parametrize("sizes", [[3] * 40, [1, 2, 3, 4, 5, 6, 7] * 6, [60, *[2] * 30], [1] * 50])
def test_no_group_is_in_two_parts_and_shares_are_about_kept(sizes: list[int]) -> None:
    records = grouped(sizes)
    group = {record.image_id: record.group for record in records}
    parts = take_apart(records, tune_share=0.1, test_share=0.2)
    groups = [{group[image_id] for image_id in part} for part in (parts.train, parts.tune, parts.test)]
    assert sorted(parts.train + parts.tune + parts.test) == sorted(group)
    assert all(groups)
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert abs(len(parts.test) - 0.2 * len(records)) <= 3.5  # half of a group of seven


def test_a_large_group_is_as_likely_apart_as_a_small_one() -> None:
    """By the hash of a group's name: were it by that of its first photo, groups of many would come first."""
    large = Counter[bool]()
    for draw in range(200):
        names = [f"{draw}/{place}" for place in range(20) for _ in range(8 if place % 2 else 1)]
        records = [Record(number, f"{number}.png", (1, 1), name) for number, name in enumerate(names)]
        apart = {records[image_id].group for image_id in split_off(records, 0.5)[1]}
        large.update(names.count(name) == 8 for name in apart)
    assert 0.42 < large[True] / large.total() < 0.58


def test_one_group_can_not_be_split() -> None:
    parts = take_apart(grouped([5]), tune_share=0.1, test_share=0.2)
    assert (len(parts.train), parts.tune, parts.test) == (5, [], [])


def test_testing_comes_before_tuning_and_neither_depends_on_a_limit() -> None:
    whole = take_apart(RECORDS, tune_share=0.1, test_share=0.2)
    assert [len(part) for part in (whole.train, whole.tune, whole.test)] == [72, 8, 20]
    assert whole.test == split_off(RECORDS, 0.2)[1]
    few = take_apart(RECORDS, tune_share=0.1, test_share=0.2, limit=5)
    assert (few.tune, few.test) == (whole.tune, whole.test)
    assert take_apart(RECORDS, tune_share=0.1).test == []


def test_the_first_of_a_split_are_within_the_first_of_more() -> None:
    assert first(RECORDS, None) == [record.image_id for record in RECORDS]
    assert set(first(RECORDS, 5)) < set(first(RECORDS[::-1], 20))
    assert len(first(RECORDS, 1000)) == 100
