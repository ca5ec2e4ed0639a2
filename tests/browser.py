"""A page as a reader sees it, in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

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

needed = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine (Debian: apt install chromium)")


def browse(*arguments: str) -> str:
    """What chromium says, without a network."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def measured(page: Path, width: int, folder: Path) -> dict[str, Any]:
    """What `MEASURE` tells of a page in a window so wide; `folder` is for what that takes."""
    (folder / "measured.html").write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    # a window of headless chromium is 500 pixels wide at the least: a frame can be narrower
    frame = folder / "frame.html"
    relay = "<script>onload = () => document.title = frames[0].document.title</script>"
    frame.write_text(f'<iframe src="measured.html" style="width:{width}px;height:900px;border:0"></iframe>{relay}')
    dom = browse("--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom", f"file://{frame}")
    (title,) = re.findall(r"<title>(.*?)</title>", dom)
    seen: dict[str, Any] = json.loads(unescape(title))
    return seen
