"""Cores: objects that touch are told apart by what lies deep inside of each.

A cell is core where it is at least `deep` times as far from the edge of its object as the deepest of it. Cores do not
touch where their objects do, so their connected components are the objects, and every other cell of the foreground
joins the core nearest to it.

B images   C classes   F channels   N objects of an image   h w cells   P foreground cells   K core cells
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import Common
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import AffinityComponents, Pixels, nearest
from maskbench.ops.grouping import Groups, SemanticMap, shared_out
from maskbench.structures import Batch


class Raw(NamedTuple):
    """Logits of every cell: of its class (the last is background), and of being core."""

    semantic: Float[Tensor, "B C+1 h w"]
    core: Float[Tensor, "B 1 h w"]
    features: Float[Tensor, "B F h w"] | None = None
    """What is seen there, if masks are scored by it."""


class Cores(BottomUp):
    """A semantic map and a map of cores.

    Args:
        decoder: from the backbone's maps to the one that both are read from.
        deep: how deep inside its object a core cell lies, as a share of the deepest.
        weights: of semantic and core loss.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        deep: float = 0.5,
        weights: tuple[float, float] = (1.0, 1.0),
        smallest: int = 4,
        score: str = "semantic_x_centre",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False,), smallest=smallest, score=score, **common)
        self.deep, self.weights = deep, weights
        self.components = AffinityComponents()
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.core = predictor(self.decoder.width, 1, kernel=1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        (features,) = self.decoder(self.backbone(images))
        return Raw(self.classify(features), self.core(features), self.features_of(features))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        return raw.semantic.float().softmax(dim=1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, truth = self(self.prepare(batch)), self.true_maps(batch)
        cores = torch.stack([true_cores(cells, self.deep) for cells in truth.cells])
        core = F.binary_cross_entropy_with_logits(raw.core[:, 0].float(), cores.float(), reduction="none")
        semantic_weight, core_weight = self.weights
        return {
            "semantic": semantic_weight * F.cross_entropy(raw.semantic.float(), truth.classes),
            "core": core_weight * (core * truth.inside).sum() / truth.inside.sum(),
            **self.quality_loss(raw, batch, truth),
        }

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        images = zip(raw.core.float().sigmoid(), maps, strict=True)
        return [self._image(core[0], known) for core, known in images]

    def _image(self, core: Float[Tensor, "h w"], known: SemanticMap) -> Groups:
        """The components of the cores, which cells join, and how sure the core of each is."""
        cell = (known.foreground & (core > 0.5)).nonzero()
        sure, alike = core[cell[:, 0], cell[:, 1]], torch.zeros_like(cell[:, 0])
        (components,) = self.components([Pixels(cell.new_zeros(len(cell), 1).float(), cell, alike, sure)])
        distance, seed = nearest(known.foreground.nonzero().float(), cell.float())
        member = torch.cat([components.member, alike.new_tensor([-1])])[seed]  # without a core the seed is −1
        size = torch.bincount(components.member)
        mean = torch.zeros_like(size, dtype=core.dtype).index_add(0, components.member, sure) / size
        return shared_out(known, member, distance, mean)


def true_cores(cells: Int64[Tensor, "h w"], deep: float) -> Bool[Tensor, "h w"]:
    """The core cells of the objects: so many steps from the edge, the border of the image being none."""
    inside = (cells >= 0).float()
    depth = torch.zeros_like(inside)
    while inside.any():
        depth, inside = depth + inside, inside * _without_edge(cells, inside)
    deepest = depth.new_zeros(int(cells.amax()) + 2).scatter_reduce(0, cells.flatten() + 1, depth.flatten(), "amax")
    return (cells >= 0) & (depth >= deep * deepest[cells + 1])


def _without_edge(cells: Int64[Tensor, "h w"], inside: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """1 where all eight neighbours are of the same object and still inside."""
    own = torch.where(inside > 0, cells.float(), -1.0)[None]
    highest, lowest = (sign * F.max_pool2d(sign * own, kernel_size=3, stride=1, padding=1) for sign in (1, -1))
    return (highest == lowest)[0].float()
