"""Phases are told to whoever listens, the inner ones inside the outer ones, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from maskbench.phases import PHASES, heard, phase
from maskbench.study import plots

DIARY: list[str] = []


@contextmanager
def diary(name: str) -> Iterator[None]:
    DIARY.append(f"{name} begins")
    try:
        yield
    finally:
        DIARY.append(f"{name} ends")


@phase("masks")
def inner(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return number + 1


@phase("selection")
def outer(number: int) -> int:
    return inner(number) * 2


@pytest.fixture(autouse=True)
def clean() -> None:
    DIARY.clear()


def test_nobody_listens() -> None:
    assert outer(2) == 6
    assert DIARY == []


def test_phases_lie_inside_each_other() -> None:
    with heard(diary):
        assert outer(2) == 6
    assert outer(3) == 8
    assert DIARY == ["selection begins", "masks begins", "masks ends", "selection ends"]


def test_a_phase_ends_with_its_error() -> None:
    with heard(diary), pytest.raises(ValueError, match="-1"):
        outer(-1)
    assert DIARY[-2:] == ["masks ends", "selection ends"]


def test_nobody_may_be_told_inside() -> None:
    with heard(diary), heard(None):
        outer(1)
    assert DIARY == []


def test_a_phase_is_still_the_function_that_it_was() -> None:
    assert outer.__name__ == "outer"


def test_the_report_knows_every_phase() -> None:
    assert tuple(plots.PHASES) == PHASES
