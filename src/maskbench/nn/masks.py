"""Masks in boxes: how two-stage methods learn them, read them and, if there is a part for it, refine them.

N regions   K channels of the mask head   m cells a side of a coarse mask, s of a mask
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from maskbench.nn.points import Draw, PointRefinement
from maskbench.ops.mask_kinds import MaskKind
from maskbench.ops.regions import Detected, Regions, mask_targets
from maskbench.structures import Instances


def mask_losses(
    logits: Float[Tensor, "N K m m"],
    positives: Regions,
    targets: Sequence[Instances],
    kind: MaskKind,
    refinement: PointRefinement | None,
    finest: Float[Tensor, "B D h w"],
    *,
    soft: bool = False,
    draw: Draw | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """How far masks are from the truth in their cells, `mask`, and at points, `point`, if they are refined.

    Args:
        logits: of the regions that hold an object.
        positives: these regions.
        targets: what they match.
        kind: what the channels stand for.
        refinement: of the masks, if any.
        finest: the level that it reads.
        soft: whether a cell's truth is the share of it that is set.
        draw: random points (default: uniform).
    """
    wanted = mask_targets(positives, targets, logits.shape[-1], soft=soft)
    losses = {"mask": kind.loss(logits, positives.all_labels(), wanted)}
    if refinement is not None:
        losses["point"] = refinement.loss(finest, positives, logits, targets, kind, draw)
    return losses


def mask_probabilities(
    logits: Float[Tensor, "N K m m"],
    found: Sequence[Detected],
    kind: MaskKind,
    refinement: PointRefinement | None,
    finest: Float[Tensor, "B D h w"],
) -> Float[Tensor, "N s s"]:
    """Inside the box of everything that was found, as coarse as the logits or refined."""
    labels = torch.cat([image.labels for image in found])
    if refinement is None:
        return kind.margin(logits, labels).sigmoid()
    return refinement.refine(finest, [image.boxes for image in found], logits, labels, kind).sigmoid()


def mask_size(coarse: int, refinement: PointRefinement | None) -> int:
    """Cells a side of a mask, of those of its logits."""
    return coarse if refinement is None else coarse << refinement.subdivisions
