"""How good a mask is, learnt: a score for instances that are groups of cells and have none of their own.

After Mask Scoring R-CNN (Huang et al., CVPR 2019, arXiv 1903.00241), which predicts the IoU of a detector's mask.

B images   F channels   h w cells   M groups of an image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn.blocks import zero_of
from maskbench.ops.grouping import Groups, SemanticMap, group_iou
from maskbench.ops.precision import full_precision


class MaskQuality(nn.Module):
    """From what the cells of a group look like on average, how probable their class is and how many they are.

    It learns from the groups that the method finds as it is being trained. No other weight gets a gradient from it;
    where gradients are clipped by their common norm, its own count.

    Args:
        channels: of the features.
        width: of the hidden layer.
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels + 2, width), nn.ReLU(inplace=True), nn.Linear(width, 1))

    def forward(self, features: Float[Tensor, "F h w"], groups: Groups, known: SemanticMap) -> Float[Tensor, " M"]:
        """The logit of each group's IoU with its object."""
        look = groups.mean(features[:, known.foreground].T.float())
        size = groups.size.clamp(min=1).log()[:, None]
        seen = torch.cat([look, groups.mean(groups.probability)[:, None], size], dim=1)
        with full_precision(seen.device):  # scores of eight bits would tie
            return self.layers(seen)[:, 0]

    def scored(self, features: Float[Tensor, "F h w"], groups: Groups, known: SemanticMap) -> Groups:
        """The same groups, with their quality."""
        return replace(groups, quality=self(features, groups, known).sigmoid())

    def loss(
        self,
        features: Float[Tensor, "B F h w"],
        groups: Sequence[Groups],
        maps: Sequence[SemanticMap],
        cells: Int64[Tensor, "B h w"],
        smallest: int = 1,
    ) -> Float[Tensor, ""]:
        """Mean binary cross-entropy between the logits and the IoU that groups have, over those of all images.

        Args:
            features: of the images; no gradient goes to them.
            groups: found in each.
            maps: what they are groups of.
            cells: the true object of each cell.
            smallest: cells of a group that counts, since smaller ones are no instances.
        """
        logits = [self(*image) for image in zip(features.detach(), groups, maps, strict=True)]
        wanted = [group_iou(*image) for image in zip(groups, maps, cells, strict=True)]
        counts = torch.cat([image.size >= smallest for image in groups])
        said, true = torch.cat(logits)[counts], torch.cat(wanted)[counts]
        loss = F.binary_cross_entropy_with_logits(said, true, reduction="sum") / max(1, len(said))
        return loss + zero_of(*self.parameters())
