"""Who learns what: anchors and proposals to boxes (the cells of a grid are in ops/grid.py).

N instances   A anchors or proposals
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchvision.ops import box_iou

NEGATIVE, IGNORED = -1, -2


@dataclass(frozen=True)
class Matcher:
    """Anchors or proposals to true boxes by intersection over union (Faster R-CNN, section 3.1.2).

    Args:
        positive: from here on a row takes the box it overlaps most.
        negative: below it is background; what lies between is ignored.
        low_quality: whether a box that overlaps a row by at least this makes the rows it overlaps most positive, even
            if they are below `positive` (None: it does not).
        takes: whether such a row then learns that box (MMDetection), or the one that it overlaps most (detectron2,
            torchvision).
    """

    positive: float
    negative: float
    low_quality: float | None = None
    takes: bool = True

    def __call__(self, rows: Float[Tensor, "A 4"], boxes: Float[Tensor, "N 4"]) -> Int64[Tensor, " A"]:
        """The index of the box each row is matched to, `NEGATIVE` or `IGNORED`."""
        matches = torch.full((len(rows),), NEGATIVE, dtype=torch.long, device=rows.device)
        if len(boxes) == 0 or len(rows) == 0:
            return matches
        overlap = box_iou(boxes, rows)
        best, index = overlap.max(dim=0)
        matches[best >= self.negative] = IGNORED
        matches = torch.where(best >= self.positive, index, matches)
        if self.low_quality is not None:
            peak = overlap.amax(dim=1, keepdim=True)
            claimed = (overlap == peak) & (peak >= self.low_quality)
            # Of several boxes that take a row the last one has it, as in the reference.
            box, row = claimed.nonzero(as_tuple=True)
            last = torch.full_like(matches, -1).scatter_reduce(0, row, box, reduce="amax")
            matches = torch.where(last >= 0, last if self.takes else index, matches)
        return matches


@dataclass(frozen=True)
class Sampler:
    """A random draw of at most `count` rows, at most `positive_share` of them positive."""

    count: int
    positive_share: float

    def __call__(self, matches: Int64[Tensor, " A"]) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " M"]]:
        """Indices of the positive and of the negative rows drawn."""
        positive = _draw((matches >= 0).nonzero()[:, 0], int(self.count * self.positive_share))
        negative = _draw((matches == NEGATIVE).nonzero()[:, 0], self.count - len(positive))
        return positive, negative


EVERY = Sampler(2**62, 1.0)
"""Takes all rows that are not ignored."""


def _draw(rows: Int64[Tensor, " A"], count: int) -> Int64[Tensor, " K"]:
    if len(rows) <= count:
        return rows
    return rows[torch.randperm(len(rows), device=rows.device)[:count]]
