from __future__ import annotations

from maskbench.data.coco import Record
from maskbench.data.split import by_hash, split_off

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
