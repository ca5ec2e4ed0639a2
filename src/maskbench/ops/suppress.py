"""Selecting among candidates that claim the same object.

N masks   H W pixels   K candidates   A cells   C classes   h w cells of a mask
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.ops.masks import pairwise_iou
from maskbench.structures import OperatingPoint, Size

Suppression = Literal["matrix", "mask"]

CHUNK_CELLS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Masks are painted in chunks of at most this many cells: 16 MB of probabilities, which a cache may hold, or 256 MB on
a GPU, which has the bandwidth for them and is slow to be told of many chunks."""


def points_nms(scores: Float[Tensor, "B C S T"]) -> Float[Tensor, "B C S T"]:
    """Scores that are the largest of the 2×2 window that ends at them; the others become 0 (SOLO's points NMS)."""
    largest = F.max_pool2d(scores, kernel_size=2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (largest == scores)


def matrix_nms(
    masks: Bool[Tensor, "N H W"], labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"], sigma: float = 2.0
) -> Float[Tensor, " N"]:
    """Scores decayed by the overlap with better masks of the same class, all at once (SOLOv2, section 3.3.2, eq. 5).

    The rows come sorted by descending score. With the Gaussian kernel as released, the decay is
    min over better i of exp(−sigma·iou_ij²) / exp(−sigma·iou_i²), iou_i the largest overlap of i with a mask better
    than itself; the paper's sigma of 0.5 divides where this one multiplies.
    """
    if len(masks) == 0:
        return scores
    overlap = _same_class_overlap(masks, labels).triu(diagonal=1)
    own = overlap.amax(dim=0)
    decay = (-sigma * overlap**2).exp() / (-sigma * own**2).exp()[:, None]
    return scores * decay.amin(dim=0)


def mask_nms(masks: Bool[Tensor, "N H W"], labels: Int64[Tensor, " N"], overlap: float = 0.5) -> Bool[Tensor, " N"]:
    """Which masks stay when of two of a class that overlap by more than `overlap` the later one goes.

    The rows come sorted by descending score. A mask that has gone takes no other with it.
    """
    return survivors(_same_class_overlap(masks, labels) > overlap)


def survivors(conflicts: Bool[Tensor, "N N"]) -> Bool[Tensor, " N"]:
    """Greedy suppression: a row stays unless a row before it stays that it conflicts with.

    Each round settles every row whose predecessors in conflict are settled, so that the result is the sequential one in
    a few rounds of tensor work.
    """
    before = conflicts.tril(diagonal=-1)
    kept = torch.zeros(len(before), dtype=torch.bool, device=before.device)
    open_ = torch.ones_like(kept)
    while bool(open_.any()):
        waits = (before & open_[None]).any(dim=1)
        suppressed = (before & kept[None]).any(dim=1)
        kept |= open_ & ~waits & ~suppressed
        open_ &= ~kept & ~(before & kept[None]).any(dim=1)
    return kept


def best(scores: Float[Tensor, " N"], count: int | None) -> Int64[Tensor, " K"]:
    """Rows of the `count` largest scores (None: all), descending; equal scores keep their order."""
    return scores.argsort(descending=True, stable=True)[:count]


def first_of_each(group: Int64[Tensor, " P"], worth: Float[Tensor, " P"]) -> Int64[Tensor, " _g"]:
    """The row of most worth in each group that has any; of equals the first."""
    order = worth.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    return order[group[order].diff(prepend=group.new_tensor([-1])) > 0]


def ranked(
    scores: Float[Tensor, " N"], count: int | None, lowest: float = 0.0
) -> tuple[Float[Tensor, " K"], Int64[Tensor, " K"]]:
    """The `count` largest scores (None: all) that are at least `lowest` and not 0, descending, and their rows.

    What is no number, as half precision may overflow to, ranks as 0.
    """
    ordered = scores.nan_to_num(0).sort(descending=True, stable=True)
    values = ordered.values[:count]
    kept = int(((values > 0) & (values >= lowest)).sum())
    return values[:kept], ordered.indices[:kept]


def above(scores: Float[Tensor, "*S"], threshold: float) -> Int64[Tensor, "K D"]:
    """Indices of the scores greater than `threshold`; a score of 0 never passes."""
    return torch.nonzero(scores > threshold)


class Candidates(NamedTuple):
    """Cells of one image that may be an object, by descending class score."""

    cells: Int64[Tensor, " K"]
    labels: Int64[Tensor, " K"]
    scores: Float[Tensor, " K"]

    @classmethod
    def of(cls, scores: Float[Tensor, "A C"], point: OperatingPoint) -> Candidates:
        """Those above the threshold, at most twice as many as enter suppression, so that memory is bounded."""
        cell, label = above(scores, point.score_threshold).unbind(dim=1)
        score = scores[cell, label]
        top = best(score, None if point.candidates is None else 2 * point.candidates)
        return cls(cell[top], label[top], score[top])


@dataclass(frozen=True)
class Selection:
    """Which candidates are instances, by their masks: SOLO's inference (section 3.4) from the class scores on.

    Args:
        suppression: "matrix": Matrix NMS, as released for the whole family; "mask": ordinary NMS on masks, as the paper
            of SOLO has it.
        sigma: of Matrix NMS.
        overlap: from which ordinary NMS drops the lower-scored mask.
        decayed: share of the score threshold that a score must keep in suppression.

    Raises:
        ConfigError: no such suppression.
    """

    suppression: str = "matrix"
    sigma: float = 2.0
    overlap: float = 0.5
    decayed: float = 0.5

    def __post_init__(self) -> None:
        if self.suppression not in get_args(Suppression):
            raise ConfigError(f"suppression={self.suppression!r}: expected one of {', '.join(get_args(Suppression))}")

    def __call__(
        self,
        candidates: Candidates,
        strides: Int64[Tensor, " K"],
        size: Size | torch.Size,
        paint: Callable[[Tensor], Tensor],
        point: OperatingPoint,
    ) -> tuple[Int64[Tensor, " _r"], Float[Tensor, " _r"]]:
        """The rows of the candidates that are instances, and their scores, descending.

        Args:
            candidates: of one image.
            strides: of the candidates' levels; a mask has more cells than that.
            size: of a mask in cells.
            paint: rows of the candidates → their mask probabilities, Float[k h w]. It is asked for a chunk at a time:
                of all candidates at once only binary masks are held.
            point: how many candidates and instances there may be.
        """
        cells = CHUNK_CELLS.get(strides.device.type, CHUNK_CELLS["cpu"])
        chunks = torch.arange(len(strides), device=strides.device).split(max(1, cells // (size[0] * size[1])))
        weighed = [_weighed(paint(rows), strides[rows]) for rows in chunks]
        masks, maskness = (torch.cat(column) for column in zip(*weighed, strict=True))
        scores, top = ranked(candidates.scores * maskness, point.candidates)
        scores = self._suppressed(masks[top], candidates.labels[top], scores)
        lowest = max(self.decayed * point.score_threshold, point.final_threshold)
        scores, kept = ranked(scores, point.max_instances, lowest)
        return top[kept], scores

    def _suppressed(self, masks: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        if self.suppression == "mask":
            return scores * mask_nms(masks, labels, self.overlap)
        return matrix_nms(masks, labels, scores, self.sigma)


def _weighed(
    maps: Float[Tensor, "K h w"], strides: Int64[Tensor, " K"]
) -> tuple[Bool[Tensor, "K h w"], Float[Tensor, " K"]]:
    """Binary masks and the mean probability inside each; 0 for a mask of no more cells than its stride."""
    masks = maps > 0.5
    area = masks.view(torch.uint8).sum(dim=(1, 2), dtype=torch.int32)
    inside = F.threshold(maps, 0.5, 0).sum(dim=(1, 2))
    return masks, inside / area.clamp(min=1) * (area > strides)


def _same_class_overlap(masks: Bool[Tensor, "N H W"], labels: Int64[Tensor, " N"]) -> Float[Tensor, "N N"]:
    return pairwise_iou(masks, masks) * (labels[:, None] == labels)
