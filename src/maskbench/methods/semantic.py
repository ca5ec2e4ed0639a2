"""Semantic segmentation alone: what hangs together is an object. The floor that every bottom-up method must beat.

Fully convolutional networks (Long et al., CVPR 2015, arXiv 1411.4038) and connected components.

B images   C classes   h w cells at stride 4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import AffinityComponents, Pixels
from maskbench.ops.grouping import (
    Groups,
    SemanticMap,
    certain,
    drawn,
    enough_cells,
    known_rule,
    majority,
    redrawn,
    semantic_areas,
    true_cells,
    true_classes,
)
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits of every cell (the last class is background)."""

    semantic: Float[Tensor, "B C+1 h w"]


class Semantic(Segmenter):
    """A semantic map and its connected components.

    Args:
        decoder: from the backbone's maps to the one that classes are read from.
        connectivity: how many neighbours a cell has, 4 or 8.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles = ("semantic map",)
    mask_stride = 4

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

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        classes = [
            true_classes(true_cells(target, self.mask_stride), target, len(self.classes)) for target in batch.targets
        ]
        return {"semantic": F.cross_entropy(raw.semantic.float(), torch.stack(classes))}

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        return self._components(raw.semantic.float().softmax(dim=1), frames)

    def _components(self, probabilities: Float[Tensor, "B C h w"], frames: Sequence[Frame]) -> list[Instances]:
        maps = [SemanticMap(*image, self.mask_stride) for image in zip(probabilities, frames, strict=True)]
        pixels = []
        for known in maps:
            inside = known.foreground
            sure = known.probabilities[:, inside].amax(dim=0)
            pixels.append(Pixels(torch.zeros_like(sure)[:, None], inside.nonzero(), known.label[inside], sure))
        found = []
        for known, own, component in zip(maps, pixels, self.components(pixels), strict=True):
            count = len(component.centres)
            label = majority(component.member, own.label, count, len(self.classes))
            groups = Groups(component.member, own.seed, component.distance, label, own.seed.new_ones(count))
            found.append(drawn(groups, known, self.score, self.smallest, self.point))
        return found

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The components of the true semantic map: objects that touch others of their class are lost."""
        classes = [
            true_classes(true_cells(target, self.mask_stride), target, len(self.classes)) for target in batch.targets
        ]
        known = torch.stack([certain(image, len(self.classes) + 1) for image in classes])
        return self._components(known, batch.frames)

    def semantic_areas(self, raw: Raw, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        return semantic_areas(raw.semantic, batch, self.mask_stride)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        return redrawn(batch, self.mask_stride)
