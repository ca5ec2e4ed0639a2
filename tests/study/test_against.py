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
    assert "| solov2-small | " in text
    assert "Only before: mask_rcnn-small." in text
    assert "Only now: discriminative-small." in text


def test_a_study_without_results_has_nothing_to_compare(two):
    now, before = two({"solov2-small": {"failed": "OutOfMemoryError: 2 GiB"}}, {"solov2-small": {}})
    found = compare(now, before)
    assert (found.moves, found.new) == ([], ["solov2-small"])


def test_other_data_are_no_pairs_and_other_settings_are_named(two):
    elsewhere = {"solov2-small": {"found": 0.9, "data": {"root": "/other", "batch": 8}, "fingerprint": "another"}}
    now, before = two({"solov2-small": {"found": 0.5}}, elsewhere)
    found = compare(now, before)
    assert found.moves[0].verdict == "not tested"
    assert found.apart["data.fingerprint"] == ("d41d8cd98f", "another")
    assert "- `data.fingerprint`: d41d8cd98f before, another now" in as_markdown(found, now.study, before.study)


def test_a_row_is_found_again_whatever_it_is_called(two, writer, tmp_path):
    # with two thresholds in the study, rows are called by them as well
    low, high = ({"point": {"score_threshold": value, "max_instances": 100}} for value in (0.0, 0.3))
    writer("mask_rcnn-small", evaluation=high)
    now, before = two({"solov2-small": {"evaluation": low}}, {"solov2-small": {"evaluation": low}})
    assert "(" in before.groups[0].methods["label"].iloc[0]
    found = compare(now, before)
    assert [move.label for move in found.moves] == ["solov2-small"]
