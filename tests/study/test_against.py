from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskbench.study.against import as_markdown, compare
from maskbench.study.board import Board


@pytest.fixture
def two(writer: Any, tmp_path: Path):
    """The study of now and that of before, from the methods of each with what is to be said of them."""

    def make(before: dict[str, Any], now: dict[str, Any]) -> tuple[Board, Board]:
        boards = []
        for name, methods in (("before", before), ("now", now)):
            for method, settings in methods.items():
                folder = writer(method, **settings)
            boards.append(Board.read(folder.parent.rename(tmp_path / name)))
        return boards[1], boards[0]

    return make


def test_what_moved_beyond_noise_and_what_within(two):
    before = {"solov2-small": {"found": 0.8}, "mask_rcnn-small": {"found": 0.9}, "discriminative-small": {"found": 0.5}}
    now = {"solov2-small": {"found": 0.802}, "mask_rcnn-small": {"found": 0.6}, "discriminative-small": {"found": 0.8}}
    found = compare(*two(before, now))
    moves = {move.label: move for move in found.moves}
    assert moves["solov2-small"].verdict == "within noise"
    assert moves["mask_rcnn-small"].verdict == "lower"
    assert moves["mask_rcnn-small"].low < moves["mask_rcnn-small"].high < 0
    assert moves["discriminative-small"].verdict == "higher"
    assert 0 < moves["discriminative-small"].low < moves["discriminative-small"].high
    assert moves["solov2-small"].speed == pytest.approx(1)


def test_what_cannot_be_tested_is_not(two):
    now, before = two({"solov2-small": {"found": 0.8}}, {"solov2-small": {"machine": "another"}})
    (move,) = compare(now, before).moves
    assert (move.verdict, move.low, move.high, move.speed) == ("not tested", None, None, None)


def test_rows_of_one_study_alone_are_named(two):
    now, before = two({"solov2-small": {}, "mask_rcnn-small": {}}, {"solov2-small": {}, "discriminative-small": {}})
    found = compare(now, before)
    assert ([move.label for move in found.moves], found.gone, found.new) == (
        ["solov2-small"],
        ["mask_rcnn-small"],
        ["discriminative-small"],
    )
    text = as_markdown(found, now.study, before.study)
    assert text.startswith("# now against before\n")
    assert "| solov2-small | 63." in text
    assert "Only before: mask_rcnn-small." in text
    assert "Only now: discriminative-small." in text


def test_a_study_without_results_has_nothing_to_compare(two):
    now, before = two({"solov2-small": {"failed": "OutOfMemoryError: 2 GiB"}}, {"solov2-small": {}})
    found = compare(now, before)
    assert (found.moves, found.new) == ([], ["solov2-small"])
