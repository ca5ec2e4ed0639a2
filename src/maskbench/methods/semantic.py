"""Semantic segmentation alone: what hangs together is an object. The floor that every bottom-up method must beat.

Fully convolutional networks (Long et al., CVPR 2015, arXiv 1411.4038) and connected components.

B images   C classes   h w cells at stride 4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import BottomUp, Common, Oracle
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import AffinityComponents, Pixels
from maskbench.ops.grouping import SemanticMap, known_rule, shared_out
from maskbench.structures import Batch, Frame, Instances


class Raw(NamedTuple):
    """Class logits of every cell (the last class is background)."""

    semantic: Float[Tensor, "B C+1 h w"]


class Semantic(BottomUp):
    """A semantic map and its connected components.

    Args:
        decoder: from the backbone's maps to the one that classes are read from.
        connectivity: how many neighbours a cell has, 4 or 8.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    oracles = ("semantic map",)

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        connectivity: int = 8,
        smallest: int = 4,
        score: str = "semantic",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.components = AffinityComponents(connectivity=connectivity)
        self.smallest, self.score = smallest, known_rule(score)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False,))
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B C h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        return {"semantic": F.cross_entropy(raw.semantic.float(), self.true_maps(batch).classes)}

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return self._components(self.maps(raw, frames))

    def _components(self, maps: Sequence[SemanticMap]) -> list[Instances]:
        pixels = []
        for known in maps:
            label = known.label[known.foreground]
            same = torch.ones_like(label).float()
            pixels.append(Pixels(same[:, None], known.foreground.nonzero(), label, same))
        found = []
        for known, component in zip(maps, self.components(pixels), strict=True):
            sure = component.distance.new_ones(len(component.centres))
            found.append(self.drawn(shared_out(known, component.member, component.distance, sure), known))
        return found

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The components of the true semantic map: objects that touch others of their class are lost."""
        return self._components(self.known_maps(batch))
