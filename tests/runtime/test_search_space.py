from __future__ import annotations

from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from maskbench.errors import ConfigError
from maskbench.runtime.search_space import Space


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a,b", CategoricalDistribution(["a", "b"])),
        ("1,2.5,null,[1,2]", CategoricalDistribution(["1", "2.5", "[1,2]", "null"])),
        ("shuffle(c,a,b)", CategoricalDistribution(["a", "b", "c"])),
        ("interval(0.1,0.4)", FloatDistribution(0.1, 0.4)),
        ("interval(1,4)", FloatDistribution(1.0, 4.0)),
        ("int(interval(1,4))", IntDistribution(1, 4)),
        ("tag(log, interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("tag(log, int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("tag(log, range(1,64))", IntDistribution(1, 63, log=True)),
        ("range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("range(9,1,-2)", IntDistribution(3, 9, step=2)),
        ("range(0.1,0.4,0.1)", FloatDistribution(0.1, 0.3, step=0.1)),
    ],
)
def test_hydras_words_for_sweeps_are_distributions(words: str, expected: BaseDistribution) -> None:
    assert Space.read([f"method.x={words}"]).searched == {"method.x": expected}


def test_what_has_one_value_is_fixed() -> None:
    space = Space.read(["method=a,b", "method.score=choice(learned)", "+x=range(3,4)", "trainer.max_epochs=2", "~y"])
    assert list(space.searched) == ["method"]
    assert space.overrides({"method": "b"}) == [
        "method.score=learned",
        "+x=3",
        "trainer.max_epochs=2",
        "~y",
        "method=b",
    ]


def test_a_setting_that_is_given_twice_counts_as_it_is_given_last() -> None:
    space = Space.read(["method.x=3", "method.y=1,2", "method.x=4"])
    assert space.fixed == ("method.x=4",)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.1 + 0.2, "0.3"), (3.0, "3.0"), (1e-5, "1e-05"), (7, "7"), ("[1,2]", "[1,2]")],
)
def test_a_value_is_written_as_an_override_has_it(value: Any, written: str) -> None:
    assert Space.read(["+x=1,2"]).overrides({"+x": value}) == [f"+x={written}"]


def test_corners_have_every_choice_and_both_ends() -> None:
    space = Space.read(["method=a,b,c", "method.x=interval(0.1,0.4)"])
    corners = [tuple(corner.values()) for corner in space.corners()]
    assert corners == [("a", 0.1), ("b", 0.1), ("c", 0.1), ("a", 0.4)]


def test_the_same_space_is_told_however_it_is_written() -> None:
    one = Space.read(["method.x=range(1,9,2)", "method.y=a,b"])
    other = Space.read(["method.y=choice(b,a)", "method.x=range(7,0,-2)"])
    assert one.described() == other.described()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=solov2"], "nothing to search in: method=solov2. Leave something open"),
        (["method.x=interval(4,1)"], "runs from low to high, found 4.0 to 1.0"),
        (["method.x=range(4,1)"], "no number from 4 to 1 in steps of 1"),
        (["method.x=range(1,4,0)"], "no number from 1 to 4 in steps of 0"),
        (["method.x=tag(log, interval(0,1))"], "above 0, found 0"),
        (["method.x=tag(log, range(0.1,1,0.1))"], r"say tag\(log, interval\(0.1,0.9\)\)"),
        (["method.x=tag(log, choice(1,2))"], r"say tag\(log, interval\(LOW,HIGH\)\)"),
        (["method.x=tag(wide, interval(0,1))"], "knows the tag log, found wide"),
        (["seed=0,1"], "seed can't be searched, as luck is no setting"),
        (["study=a,b"], "study can't be searched, as a search is one folder"),
        (["data=coco,shapes"], "data can't be searched, as trials are compared on one tune split"),
        (["data.root.images=8,16"], "one tune split"),
        (["data.tune_share=0.1,0.2"], "one tune split"),
        (["evaluation=default,crowded"], "compared by one evaluator"),
        (["logger.mode=offline,online"], "it changes no result; give it one value"),
    ],
)
def test_what_cannot_be_searched_is_told(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Space.read(words)


def test_the_batch_is_the_one_thing_of_the_data_that_is_searched() -> None:
    assert list(Space.read(["data.batch=8,16"]).searched) == ["data.batch"]
