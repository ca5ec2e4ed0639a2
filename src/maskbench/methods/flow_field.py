"""Flows: every cell says which way its object's middle lies, and cells that flow to one place are an object.

Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation", Nature Methods 18 (2021).

B images   N objects of an image   C classes   h w cells at stride 4   P foreground cells   M sinks
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
from maskbench.ops.cluster import nearest
from maskbench.ops.flows import flows, followed, sinks
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
    """Class logits (the last class is background) and the flow, in rows and columns, of every cell."""

    semantic: Float[Tensor, "B C+1 h w"]
    flow: Float[Tensor, "B 2 h w"]


class FlowField(Segmenter):
    """Semantic segmentation and a flow that is followed to its sinks.

    Cellpose tells cells from background by a logit; here a semantic map does, so that there can be several classes.
    An instance whose flow is not that of its own mask is no good one (the paper's quality control): the difference is
    what `semantic_x_compactness` weighs by, and a limit on it drops instances.

    Args:
        decoder: from the backbone's maps to the one that classes and flow are read from.
        flow_scale: what the unit vectors are multiplied by to be learnt.
        weights: of semantic and flow loss.
        steps: for which the flow is followed.
        window: cells a side of the square in which a sink gathers what ends.
        smallest: cells that an instance must have.
        largest_error: that the flow may have, the mean squared distance over a mask.
        score: the rule by which an instance gets its score, one of `SCORES`.
    """

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles = ("semantic map", "centres")
    mask_stride = 4

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        flow_scale: float = 5.0,
        weights: tuple[float, float] = (1.0, 0.5),
        steps: int = 200,
        window: int = 5,
        smallest: int = 4,
        largest_error: float = 0.4,
        score: str = "semantic_x_compactness",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.flow_scale, self.weights, self.steps, self.window = flow_scale, weights, steps, window
        self.smallest, self.largest_error, self.score = smallest, largest_error, known_rule(score)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False,))
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.lead = predictor(self.decoder.width, 2, kernel=1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features), self.lead(features))

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, (semantic, flow) = self(self.prepare(batch)), self.weights
        cells = torch.stack([true_cells(target, self.mask_stride) for target in batch.targets])
        classes = [true_classes(*image, len(self.classes)) for image in zip(cells, batch.targets, strict=True)]
        wanted = self.flow_scale * flows(cells)
        return {
            "semantic": semantic * F.cross_entropy(raw.semantic.float(), torch.stack(classes)),
            "flow": flow * F.mse_loss(raw.flow.float(), wanted),
        }

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        images = zip(raw.semantic.float().softmax(dim=1), raw.flow.float() / self.flow_scale, frames, strict=True)
        return [
            self._instances(SemanticMap(probability, frame, self.mask_stride), flow)
            for probability, flow, frame in images
        ]

    def _instances(self, known: SemanticMap, flow: Float[Tensor, "2 h w"]) -> Instances:
        inside = known.foreground
        ends = followed(flow, inside, self.steps)
        middles = sinks(ends, inside.shape, self.window, self.smallest)
        if not len(middles):
            return Instances.empty(known.frame.photo, inside.device)
        distance, member = nearest(ends, middles)
        member = member.masked_fill(distance > self.window, -1)  # it circles or leaves the photo
        return drawn(self._groups(known, flow, member, len(middles)), known, self.score, self.smallest, self.point)

    def _groups(
        self, known: SemanticMap, flow: Float[Tensor, "2 h w"], member: Int64[Tensor, " P"], count: int
    ) -> Groups:
        """The groups, without those whose own flows would be others."""
        inside = known.foreground
        cells = torch.full(inside.shape, -1, device=inside.device)
        cells[inside] = member
        apart = torch.linalg.vector_norm(flow - flows(cells[None])[0], dim=0)[inside]
        label = majority(member, known.label[inside], count, len(self.classes))
        probability = known.probabilities[:, inside].gather(0, label[member][None])[0]
        groups = Groups(member, probability, apart, label, apart.new_ones(count))
        bad = groups.mean(apart**2) > self.largest_error
        return Groups(member.masked_fill(bad[member] & (member >= 0), -1), probability, apart, label, groups.centre)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map, or by following the true flows, whose sinks are the true middles."""
        found = []
        images = zip(raw.semantic.float().softmax(dim=1), raw.flow.float() / self.flow_scale, strict=True)
        for (probability, flow), target, frame in zip(images, batch.targets, batch.frames, strict=True):
            cells = true_cells(target, self.mask_stride)
            if oracle == "semantic map":
                classes = true_classes(cells, target, len(self.classes))
                probability = certain(classes, len(self.classes) + 1)
            else:
                flow = flows(cells[None])[0]
            found.append(self._instances(SemanticMap(probability, frame, self.mask_stride), flow))
        return found

    def semantic_areas(self, raw: Raw, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        return semantic_areas(raw.semantic, batch, self.mask_stride)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        return redrawn(batch, self.mask_stride)
