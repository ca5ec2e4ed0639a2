"""What several methods find in one photo, side by side.

h w pixels of a panel
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from maskbench.runtime.lettering import head_line, letter_size
from maskbench.runtime.overlays import fit

SIDE = 1024
"""Pixels of a panel's longer side at most: a picture of several has to be looked at as a whole."""

ABREAST = 4
"""Panels of a row at most."""

GAP = 8
"""Pixels between panels."""


def side_by_side(panels: Mapping[tuple[str, str], UInt8[ndarray, "h w 3"]]) -> UInt8[ndarray, "_H _W 3"]:
    """Panels of one size in rows, each below its head line.

    Args:
        panels: by what stands at the left and at the right of their head lines.
    """
    shown = {head: fit(panel, SIDE) for head, panel in panels.items()}
    rows = math.ceil(len(shown) / ABREAST)
    abreast = math.ceil(len(shown) / rows)
    width = max(panel.shape[1] for panel in shown.values())
    size = letter_size(max(panel.shape[:2] for panel in shown.values()))
    cells = [np.concatenate([head_line(head, width, size), panel]) for head, panel in shown.items()]
    height = cells[0].shape[0]
    picture = np.full((rows * (height + GAP) - GAP, abreast * (width + GAP) - GAP, 3), 255, np.uint8)
    for place, cell in enumerate(cells):
        top, left = place // abreast * (height + GAP), place % abreast * (width + GAP)
        picture[top : top + height, left : left + width] = cell
    return picture
