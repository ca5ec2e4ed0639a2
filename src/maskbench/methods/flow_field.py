"""Flows: every cell says which way its object's middle lies, and cells that flow to one place are an object.

Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation", Nature Methods 18 (2021).

B images   N objects of an image   C classes   h w cells at stride 4   P foreground cells   M sinks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import BottomUp, Common, Oracle
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import nearest
from maskbench.ops.flows import flows, followed, sinks
from maskbench.ops.grouping import Groups, SemanticMap, known_rule, shared_out
from maskbench.structures import Batch, Frame, Instances


class Raw(NamedTuple):
    """Class logits (the last class is background) and the flow, in rows and columns, of every cell."""

    semantic: Float[Tensor, "B C+1 h w"]
    flow: Float[Tensor, "B 2 h w"]


class FlowField(BottomUp):
    """Semantic segmentation and a flow that is followed to its sinks.

    Cellpose tells cells from background by a logit; here a semantic map does, so that there can be several classes.
    An instance whose flow is not that of its own mask is no good one (the paper's quality control): the difference is
    what `semantic_x_compactness` weighs by, and a limit on it drops instances.

    Args:
        decoder: from the backbone's maps to the one that classes and flow are read from.
        flow_scale: what the unit vectors are multiplied by to be learnt.
        weights: of semantic and flow loss.
        steps: for which the flow is followed.
        window: cells a side of the square in which a sink gathers what ends, an odd number.
        smallest: cells that an instance must have.
        largest_error: that the flow may have, the mean squared distance over a mask.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    oracles = ("semantic map", "flows")

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
        if window % 2 == 0:
            raise ConfigError(f"window={window}: expected an odd number of cells, so that it has a middle")
        self.flow_scale, self.weights, self.steps, self.window = flow_scale, weights, steps, window
        self.smallest, self.largest_error, self.score = smallest, largest_error, known_rule(score)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False,))
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.lead = predictor(self.decoder.width, 2, kernel=1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features), self.lead(features))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B C h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, (semantic, flow) = self(self.prepare(batch)), self.weights
        cells, classes = truth = self.true_maps(batch)
        apart = ((raw.flow.float() - self.flow_scale * flows(cells)) ** 2).mean(dim=1)
        return {
            "semantic": semantic * F.cross_entropy(raw.semantic.float(), classes),
            "flow": flow * apart[truth.inside].mean(),
        }

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        flow = raw.flow.float() / self.flow_scale
        return [self._followed(*image) for image in zip(self.maps(raw, frames), flow, strict=True)]

    def _followed(self, known: SemanticMap, flow: Float[Tensor, "2 h w"]) -> Instances:
        inside = known.foreground
        ends = followed(flow, inside, self.steps)
        middles = sinks(ends, inside.shape, self.window, self.smallest)
        if not len(middles):
            return Instances.empty(known.frame.photo, inside.device)
        distance, member = nearest(ends, middles)
        member = member.masked_fill(distance > self.window, -1)  # it circles or leaves the photo
        return self.drawn(self._groups(known, flow, member, len(middles)), known)

    def _groups(
        self, known: SemanticMap, flow: Float[Tensor, "2 h w"], member: Int64[Tensor, " P"], count: int
    ) -> Groups:
        """The groups, without those whose own flows would be others."""
        cells = torch.full(known.foreground.shape, -1, device=member.device)
        cells[known.foreground] = member
        apart = torch.linalg.vector_norm(flow - flows(cells[None])[0], dim=0)[known.foreground]
        groups = shared_out(known, member, apart, apart.new_ones(count))
        good = groups.mean(apart**2) <= self.largest_error
        return replace(groups, member=torch.where((member >= 0) & good[member], member, -1))

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map, or by following the true flows."""
        maps = self.known_maps(batch) if oracle == "semantic map" else self.maps(raw, batch.frames)
        true = oracle == "flows"
        flow = flows(self.true_maps(batch).cells) if true else raw.flow.float() / self.flow_scale
        return [self._followed(*image) for image in zip(maps, flow, strict=True)]
