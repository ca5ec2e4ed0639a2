"""The report in a real browser: from disk, at the width of a desk and of a phone, and on paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from browser import browse, measured, needed
from maskbench.study.board import Board
from maskbench.study.report import write_report

pytestmark = [pytest.mark.slow, needed]


@pytest.fixture
def page(writer: Any) -> Path:
    """A study with all that a report can hold."""
    for method, found in (("solov2-small", 0.8), ("mask_rcnn-small", 0.79), ("discriminative-small", 0.5)):
        folder = writer(method, found=found)
    return write_report(Board.read(folder.parent))


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Path, width: int, tmp_path: Path) -> None:
    seen = measured(page, width, tmp_path)
    assert (seen["window"], seen["wide"], seen["lost"]) == (width, [], 0)
    assert seen["page"] <= width


def test_it_is_printed_on_a_few_sheets(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(f"--print-to-pdf={paper}", f"file://{page}")
    sheets = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 3 <= sheets <= 20
