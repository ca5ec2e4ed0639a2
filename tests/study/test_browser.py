"""The report in a real browser: from disk, at the width of a desk and of a phone, and on paper."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from maskbench.study.board import Board
from maskbench.study.report import write_report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
MEASURE = """<script>window.onload = () => {
  const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, details:not([open])"))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className);
  const lost = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
  document.title = JSON.stringify({page: document.documentElement.scrollWidth, window: innerWidth, wide, lost});
}</script>"""
"""What a reader would see: whether the page is wider than its window, and pictures that are not there."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt install chromium)"),
]


def browse(*arguments: str) -> str:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture
def page(writer: Any) -> Path:
    """A study with all that a report can hold."""
    for method, found in (("solov2-small", 0.8), ("mask_rcnn-small", 0.79), ("discriminative-small", 0.5)):
        folder = writer(method, found=found)
    return write_report(Board.read(folder.parent))


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Path, width: int, tmp_path: Path) -> None:
    measured = tmp_path / "measured.html"
    measured.write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    # a window of headless chromium is 500 pixels wide at the least: a frame can be narrower
    frame = tmp_path / "frame.html"
    relay = "<script>onload = () => document.title = frames[0].document.title</script>"
    frame.write_text(f'<iframe src="measured.html" style="width:{width}px;height:900px;border:0"></iframe>{relay}')
    dom = browse("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", f"file://{frame}")
    (title,) = re.findall(r"<title>(.*?)</title>", dom)
    seen = json.loads(unescape(title))
    assert (seen["window"], seen["wide"], seen["lost"]) == (width, [], 0)
    assert seen["page"] <= width


def test_it_is_printed_on_a_few_sheets(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    browse(f"--print-to-pdf={paper}", f"file://{page}")
    sheets = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 3 <= sheets <= 20
