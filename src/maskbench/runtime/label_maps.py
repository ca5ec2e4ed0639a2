"""Label maps: one image of integers for all instances of a photo, and a table that says what they are.

N instances   H W pixels of the photo
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from numpy import ndarray

from maskbench.atomic import replace_text
from maskbench.errors import DataError
from maskbench.runtime.overlays import save
from maskbench.structures import Instances

MOST = 65535
"""Integers that 16 bits tell apart, beside 0 for the background."""

COLUMNS = ("instance", "class", "category_id", "score", "area", "visible", "left", "top", "width", "height")
"""Of the table. `area` is that of the mask; `visible` is how many of its pixels no better instance covers, and how many
of the map have the integer. The box is the mask's, in pixels."""


def label_map(instances: Instances) -> UInt16[ndarray, "H W"]:
    """1 for the pixels of the best instance, 2 for those of the next that are still free, and so on; else 0.

    Raises:
        DataError: there are more instances than integers.
    """
    if len(instances) > MOST:
        raise DataError(
            f"a label map of 16 bits tells {MOST:,} instances apart, found {len(instances):,}; "
            "say a higher score=..., or leave label_maps out of save=[...]"
        )
    drawn = np.zeros(instances.masks.size, np.uint16)
    for row in reversed(range(len(instances))):
        drawn[instances.masks[row : row + 1].dense()[0].cpu().numpy()] = row + 1
    return drawn


def write(path: Path, instances: Instances, classes: Sequence[str], category_ids: Sequence[int]) -> Path:
    """Write the label map as a PNG of 16 bits and the table beside it as `.csv`; returns the path of the map.

    Args:
        path: of the map.
        instances: in photo pixels, scores descending.
        classes: names by label.
        category_ids: COCO's, by label.

    Raises:
        DataError: as for `label_map`.
    """
    drawn = label_map(instances)
    visible = np.bincount(drawn.ravel(), minlength=len(instances) + 1)[1:].tolist()
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    areas, boxes = instances.masks.areas().tolist(), instances.masks.boxes().int().tolist()
    rows = zip(instances.labels.tolist(), instances.scores.tolist(), areas, visible, boxes, strict=True)
    for number, (label, score, area, seen, (left, top, right, bottom)) in enumerate(rows, start=1):
        box = (left, top, right - left, bottom - top)
        writer.writerow((number, classes[label], category_ids[label], round(score, 6), area, seen, *box))
    replace_text(path.with_suffix(".csv"), table.getvalue())
    return save(drawn, path)
