"""Flows: every cell says which way its object's middle lies, and cells that flow to one place are an object.

Stringer et al., "Cellpose: a generalist algorithm for cellular segmentation", Nature Methods 18 (2021).

B images   N objects of an image   C classes   F channels   h w cells   P foreground cells   M sinks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import nearest
from maskbench.ops.flows import flows, followed, sinks
from maskbench.ops.grouping import Balance, Groups, SemanticMap, known_balance, mean_over_objects, shared_out
from maskbench.structures import Batch, Instances


class Raw(NamedTuple):
    """Class logits (the last class is background) and the flow, in rows and columns, of every cell."""

    semantic: Float[Tensor, "B C+1 h w"]
    flow: Float[Tensor, "B 2 h w"]
    features: Float[Tensor, "B F h w"] | None = None
    """What is seen there, if masks are scored by it."""


class FlowField(BottomUp):
    """Semantic segmentation and a flow that is followed to its sinks.

    Cellpose tells cells from background by a logit; here a semantic map does, so that there can be several classes.
    An instance whose flow is not that of its own mask is no good one (the paper's quality control): the difference is
    what `semantic_x_compactness` weighs by, and a limit on it drops instances.

    Args:
        decoder: from the backbone's maps to the one that classes and flow are read from.
        flow_scale: what the unit vectors are multiplied by to be learnt.
        weights: of semantic and flow loss.
        balance: what the flow loss is the mean over: "cells", as in the paper, whose objects are of one size, or
            "objects", each the mean over its own cells and an image's background one of them, so that small ones count.
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
        balance: Balance = "cells",
        steps: int = 200,
        window: int = 5,
        smallest: int = 4,
        largest_error: float = 0.4,
        score: str = "semantic_x_compactness",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False,), smallest=smallest, score=score, **common)
        if window % 2 == 0:
            raise ConfigError(f"window={window}: expected an odd number of cells, so that it has a middle")
        self.flow_scale, self.weights, self.balance = flow_scale, weights, known_balance(balance)
        self.steps, self.window, self.largest_error = steps, window, largest_error
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.lead = predictor(self.decoder.width, 2, kernel=1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features), self.lead(features), self.features_of(features))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, (semantic, flow) = self(self.prepare(batch)), self.weights
        cells, classes = truth = self.true_maps(batch)
        apart = ((raw.flow.float() - self.flow_scale * flows(cells)) ** 2).mean(dim=1)
        if self.balance == "objects":
            apart = mean_over_objects(apart, torch.where(truth.inside, cells + 1, -1))  # background is the first
        else:
            apart = apart[truth.inside].mean()
        return {
            "semantic": semantic * F.cross_entropy(raw.semantic.float(), classes),
            "flow": flow * apart,
            **self.quality_loss(raw, batch, truth),
        }

    # Prediction ------------------------------------------------------------------------------------------------------

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        return self._followed(maps, raw.flow.float() / self.flow_scale)

    def _followed(self, maps: Sequence[SemanticMap], flow: Float[Tensor, "B 2 h w"]) -> list[Groups]:
        return [self._sharing_sinks(*image) for image in zip(maps, flow, strict=True)]

    def _sharing_sinks(self, known: SemanticMap, flow: Float[Tensor, "2 h w"]) -> Groups:
        """What ends in one sink, unless its own flow would be another."""
        inside = known.foreground
        ends = followed(flow, inside, self.steps)
        middles = sinks(ends, inside.shape, self.window, self.smallest)
        distance, member = nearest(ends, middles)
        member = member.masked_fill(distance > self.window, -1)  # it circles or leaves the photo
        cells = torch.full(inside.shape, -1, device=member.device)
        cells[inside] = member
        apart = torch.linalg.vector_norm(flow - flows(cells[None])[0], dim=0)[inside]
        groups = shared_out(known, member, apart, apart.new_ones(len(middles)))
        good = groups.mean(apart**2) <= self.largest_error
        good = torch.cat([good, good.new_zeros(1)])[member]  # −1, of none, is the last
        return replace(groups, member=member.masked_fill(~good, -1))

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map, or by following the true flows."""
        if oracle != "flows":
            return super().given(raw, batch, oracle)
        maps = self.maps(raw, batch.frames)
        return self.drawn(raw, maps, self._followed(maps, flows(self.true_maps(batch).cells)))

    def ceiling(self, batch: Batch) -> list[Instances]:
        """What following the true flows makes of the true semantic map.

        Less than the truth as one object a cell: the parts of an object that lie apart have a sink each, and objects
        two cells wide share one.
        """
        maps = self.true_semantic_maps(batch)
        return self.redrawn(maps, self._followed(maps, flows(self.true_maps(batch).cells)))
