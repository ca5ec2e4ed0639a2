from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.study.board import Board
from maskbench.study.published import figures, published
from maskbench.study.report import write_report


def test_every_figure_says_where_it_stands_and_what_was_timed() -> None:
    root = Path(__file__).parents[2] / "conf" / "method"
    for figure in figures():
        assert (root / f"{figure.method}.yaml").is_file()
        assert figure.source
        assert 20 < figure.ap < 50
        assert (figure.ms is None) == (figure.timed is None) == (figure.hardware is None)


def test_the_order_of_a_study_is_held_against_the_published_one(study: Path) -> None:
    (found,) = Board.read(study).groups
    known = published(found)
    assert {figure.method for figure in known.figures} == {"mask_rcnn", "solov2"}, "nobody has published the third"
    assert [(order.label, order.rank, order.published, order.published_rank) for order in known.orders] == [
        ("solov2-small", 1, 34.8, 1),
        ("mask_rcnn-small", 2, 34.7, 2),
    ]
    assert (known.alike, known.pairs) == (1, 1)
    html = write_report(Board.read(study)).read_text()
    assert "1 of 1 pairs of methods that can be told apart here" in html
    assert "inference_on_dataset" in html


@pytest.mark.parametrize("methods", [["solov2-small"], ["discriminative-small"]])
def test_one_method_alone_is_in_no_order(methods: list[str], writer) -> None:
    folders = [writer(method) for method in methods]
    (found,) = Board.read(folders[0].parent).groups
    assert published(found).orders == []
