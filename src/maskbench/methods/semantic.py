"""Semantic segmentation alone: what hangs together is an object. The floor that every bottom-up method must beat.

Fully convolutional networks (Long et al., CVPR 2015, arXiv 1411.4038) and connected components.

B images   C classes   F channels   h w cells
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import Common
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import AffinityComponents, Pixels
from maskbench.ops.grouping import Groups, SemanticMap, of_clusters
from maskbench.structures import Batch


class Raw(NamedTuple):
    """Class logits of every cell (the last class is background); what is seen there, if masks are scored by it."""

    semantic: Float[Tensor, "B C+1 h w"]
    features: Float[Tensor, "B F h w"] | None = None


class Semantic(BottomUp):
    """A semantic map and its connected components.

    Args:
        decoder: from the backbone's maps to the one that classes are read from.
        connectivity: how many neighbours a cell has, 4 or 8.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        connectivity: int = 8,
        smallest: int = 4,
        score: str = "semantic",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False,), smallest=smallest, score=score, **common)
        self.components = AffinityComponents(connectivity=connectivity)
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features), self.features_of(features))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, truth = self(self.prepare(batch)), self.true_maps(batch)
        semantic = F.cross_entropy(raw.semantic.float(), truth.classes)
        return {"semantic": semantic, **self.quality_loss(raw, batch, truth)}

    # Prediction ------------------------------------------------------------------------------------------------------

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        """Its components; of the true map objects that touch others of their class are lost."""
        pixels = []
        for known in maps:
            label = known.label[known.foreground]
            same = torch.ones_like(label).float()
            pixels.append(Pixels(same[:, None], known.foreground.nonzero(), label, same))
        return of_clusters(maps, self.components(pixels))
