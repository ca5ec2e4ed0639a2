r"""Equations between dollars as MathML, which browsers draw by themselves: no script, and nothing is fetched.

pymdownx.arithmatex finds them and leaves `\(…\)` and `\[…\]`.
"""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Any

from latex2mathml.converter import convert

ALONE = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Convert the equations of a page."""
    html = ALONE.sub(lambda found: f'<div class="equation">{_drawn(found[1], "block")}</div>', html)
    return INLINE.sub(lambda found: _drawn(found[1], "inline"), html)


def _drawn(text: str, display: str) -> str:
    """The equation, with what was typed for those who can't see it or copy it."""
    tex = " ".join(unescape(text).split())
    return convert(tex, display=display).replace("<math ", f'<math alttext="{escape(tex, quote=True)}" ', 1)
