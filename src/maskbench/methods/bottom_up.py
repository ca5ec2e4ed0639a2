"""What the bottom-up methods share: a semantic map whose foreground they share out, and what follows from that.

B images   C classes   F channels   h w cells of the backbone's finest map, which is that of stride 4 by default
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.decoders import Decoder
from maskbench.nn.quality import MaskQuality
from maskbench.ops.grouping import (
    Groups,
    SemanticMap,
    TrueMaps,
    drawn,
    enough_cells,
    known_rule,
    redrawn,
    semantic_maps,
    true_maps,
)
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class BottomUp(Segmenter):
    """A method that shares out the foreground of a semantic map, so that no two instances have a cell.

    It writes `forward`, `loss`, `probabilities` and `groups`. Its raw output has `features`, as `features_of` gives
    them; its losses hold those of `quality_loss`.

    Args:
        decoder: from the backbone's maps to a map a branch.
        coordinates: of each branch, whether it sees where a cell lies.
        smallest: cells that an instance must have, whatever their stride.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles: ClassVar[tuple[Oracle, ...]] = ("semantic map",)

    def __init__(
        self, *, decoder: Decoder, coordinates: Sequence[bool], smallest: int, score: str, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        self.mask_stride = self.backbone.strides[0]
        self.smallest, self.score = smallest, known_rule(score)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, coordinates)
        with torch.random.fork_rng(devices=()):  # all other weights are drawn as without it
            self.quality = MaskQuality(self.decoder.width) if score == "learned" else None

    # What a method writes beside `forward` and `loss` ----------------------------------------------------------------

    @abstractmethod
    def probabilities(self, raw: Any) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        """The semantic map in the raw output: probabilities of the classes, background last."""

    @abstractmethod
    def groups(self, raw: Any, maps: Sequence[SemanticMap]) -> list[Groups]:
        """How the foreground of each image is shared out, were these the semantic maps."""

    # What follows from it --------------------------------------------------------------------------------------------

    def features_of(self, branch: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"] | None:
        """What masks are scored by, where that is learned."""
        return None if self.quality is None else branch

    def quality_loss(self, raw: Any, batch: Batch, truth: TrueMaps) -> dict[str, Tensor]:
        """The loss of the head that learns the score, by name; empty where there is none."""
        if self.quality is None:
            return {}
        with torch.no_grad():
            maps = self.maps(raw, batch.frames)
            groups = self.groups(raw, maps)
        return {"quality": self.quality.loss(raw.features, groups, maps, truth.cells, self.smallest)}

    def instances(self, raw: Any, frames: Sequence[Frame]) -> list[Instances]:
        maps = self.maps(raw, frames)
        return self.drawn(raw, maps, self.groups(raw, maps))

    def drawn(self, raw: Any, maps: Sequence[SemanticMap], groups: Sequence[Groups]) -> list[Instances]:
        """The groups that are instances, in photo pixels."""
        images = zip(self.scored(raw, maps, groups), maps, strict=True)
        return [drawn(found, known, self.score, self.smallest, self.point) for found, known in images]

    def scored(self, raw: Any, maps: Sequence[SemanticMap], groups: Sequence[Groups]) -> Sequence[Groups]:
        """The same groups, with their quality where the rule of the scores asks for it."""
        if self.quality is None:
            return groups
        return [self.quality.scored(*image) for image in zip(raw.features, groups, maps, strict=True)]

    def given(self, raw: Any, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What the method finds in the true semantic map."""
        if oracle != "semantic map":
            return super().given(raw, batch, oracle)
        maps = self.true_semantic_maps(batch)
        return self.drawn(raw, maps, self.groups(raw, maps))

    def maps(self, raw: Any, frames: Sequence[Frame]) -> list[SemanticMap]:
        """The semantic map of each image."""
        return semantic_maps(self.probabilities(raw), frames, self.mask_stride)

    def true_semantic_maps(self, batch: Batch) -> list[SemanticMap]:
        """The semantic map of each image, were the network sure of the truth."""
        return semantic_maps(self.true_maps(batch).certain(len(self.classes) + 1), batch.frames, self.mask_stride)

    def true_maps(self, batch: Batch) -> TrueMaps:
        """The objects and classes of the cells."""
        return true_maps(batch, len(self.classes), self.mask_stride)

    def semantic_areas(self, raw: Any, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        maps = zip(self.maps(raw, batch.frames), self.true_maps(batch).classes, strict=True)
        return [known.areas(classes) for known, classes in maps]

    def reach(self, raw: Any, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one object a cell."""
        return redrawn(batch, self.mask_stride)

    def redrawn(self, maps: Sequence[SemanticMap], groups: Sequence[Groups]) -> list[Instances]:
        """Groups made of the truth, in photo pixels: a ceiling where the way from maps to groups loses some of it."""
        images = zip(groups, maps, strict=True)
        return [drawn(found, known, "semantic_x_compactness", self.smallest, self.point) for found, known in images]
