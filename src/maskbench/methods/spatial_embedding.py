"""Spatial embeddings: pixels point at their object's centre, within a margin that every object learns for itself.

Neven et al., "Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth", CVPR 2019,
arXiv 1906.11109.

B images   N objects of an image   C classes   h w cells at stride 4   P foreground cells   M clusters   K pairs
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, zero_of
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import Pixels, Seeds
from maskbench.ops.grouping import (
    Groups,
    SemanticMap,
    certain,
    drawn,
    enough_cells,
    known_rule,
    majority,
    position,
    redrawn,
    semantic_areas,
    true_cells,
    true_classes,
)
from maskbench.ops.losses import lovasz_hinge
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

NEAR = 1e-3
"""Cells that an object takes less than this for its own are as good as right, and too many to look at."""


class Raw(NamedTuple):
    """What every cell says: where its centre lies, how far its object reaches, how good a seed of each class it is."""

    offset: Float[Tensor, "B 2 h w"]
    width: Float[Tensor, "B 2 h w"]
    """A tenth of the logarithm of 1 / 2σ², along rows and columns."""
    seed: Float[Tensor, "B C h w"]


class SpatialEmbedding(Segmenter):
    """Offsets, margins and seeds, learnt by the IoU of what they cluster.

    Lengths are in units of so many pixels, and no cell points farther than one unit along an axis. The seed map takes
    the place of a semantic map: what is a seed of a class with more than one half is foreground of that class.

    Args:
        decoder: from the backbone's maps to a map for offsets and margins and one for seeds.
        unit: pixels that are 1 (1024: a Cityscapes image is one by two).
        weights: of instance, margin and seed loss (section 3.2 and 3.3; 1, 10, 1 as released).
        object_weight: what the seed loss of a cell of an object counts against one of background.
        threshold: that the best seed left must be above to open a cluster.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `SCORES`.
    """

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles = ("semantic map",)
    mask_stride = 4

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        unit: float = 1024.0,
        weights: tuple[float, float, float] = (1.0, 10.0, 1.0),
        object_weight: float = 10.0,
        threshold: float = 0.9,
        smallest: int = 4,
        score: str = "semantic_x_centre",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.cell, self.weights, self.object_weight = self.mask_stride / unit, weights, object_weight
        self.smallest, self.score = smallest, known_rule(score)
        self.cluster = Seeds(bandwidth=1.0, threshold=threshold, smallest=smallest)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False, False))
        self.offset = predictor(self.decoder.width, 2, kernel=1)
        self.margin = predictor(self.decoder.width, 2, kernel=1)
        self.seed = predictor(self.decoder.width, len(self.classes), kernel=1, prior=0.1)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        places, seeds = self.decoder(self.backbone(images))
        return Raw(self.offset(places), self.margin(places), self.seed(seeds))

    def embedding(self, offset: Float[Tensor, "2 h w"]) -> Float[Tensor, "2 h w"]:
        """Where each cell points, in units (eq. 4)."""
        return self.cell * position(offset.shape[1:], offset.device).permute(2, 0, 1) + offset.float().tanh()

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        terms = [
            self._terms(Raw(*image), target)
            for image, target in zip(zip(*raw, strict=True), batch.targets, strict=True)
        ]
        return {
            name: weight * torch.stack(term).mean()
            for name, weight, term in zip(
                ("instance", "margin", "seed"), self.weights, zip(*terms, strict=True), strict=True
            )
        }

    def _terms(self, raw: Raw, target: Instances) -> tuple[Tensor, Tensor, Tensor]:
        """Of one image: how well its objects are clustered, how alike the margins of each are, how good the seeds."""
        cells = true_cells(target, self.mask_stride)
        inside = cells >= 0
        own, count = cells[inside], len(target)
        size = torch.bincount(own, minlength=count)
        places, width = self.embedding(raw.offset), raw.width.float()

        def mean(values: Float[Tensor, "2 h w"]) -> Float[Tensor, "N 2"]:
            total = values.new_zeros(count, 2).index_add(0, own, values[:, inside].T)
            return total / size.clamp(min=1)[:, None]

        centre, typical = mean(places), mean(width)
        objects = (size > 0).sum().clamp(min=1)
        likely = self._likely(places.flatten(1).T, centre, typical)
        pair = (likely > NEAR) | (cells.flatten()[None] == torch.arange(count, device=cells.device)[:, None])
        instance, cell = pair.nonzero(as_tuple=True)
        truth = cells.flatten()[cell] == instance
        hinge = lovasz_hinge(2 * likely[instance, cell] - 1, truth, instance, count)
        apart = ((width[:, inside].T - typical.detach()[own]) ** 2).sum(dim=1)
        margin = (apart / size[own] / 2).sum() / objects
        nothing = zero_of(*raw)
        return hinge.sum() / objects + nothing, margin + nothing, self._seed_loss(raw.seed, likely, cells, target)

    @staticmethod
    def _likely(
        places: Float[Tensor, "P 2"], centre: Float[Tensor, "N 2"], width: Float[Tensor, "N 2"]
    ) -> Float[Tensor, "N P"]:
        """How much each cell is of each object (eq. 5 and 7): 1 at its centre, one half at its margin."""
        scale = (10 * width).exp().sqrt()
        squared = torch.zeros((), device=places.device)
        for axis in range(2):
            squared = squared + (scale[:, axis, None] * (places[:, axis] - centre[:, axis, None])) ** 2
        return (-squared).exp()

    def _seed_loss(
        self,
        logits: Float[Tensor, "C h w"],
        likely: Float[Tensor, "N P"],
        cells: Int64[Tensor, "h w"],
        target: Instances,
    ) -> Float[Tensor, ""]:
        """The squared distance to how well a cell points (section 3.3), 0 for background and for other classes."""
        inside = cells >= 0
        own = cells[inside]
        wanted, weight = torch.zeros_like(logits, dtype=torch.float32), torch.ones_like(logits, dtype=torch.float32)
        row, column = inside.nonzero(as_tuple=True)
        label = target.labels[own]
        wanted[label, row, column] = likely.detach()[own, (row * cells.shape[1] + column)]
        weight[label, row, column] = self.object_weight
        return (weight * (logits.float().sigmoid() - wanted) ** 2).sum() / cells.numel()

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        seeds = raw.seed.float().sigmoid()
        return [
            self._instances(SemanticMap(_with_background(seed), frame, self.mask_stride), seed, Raw(*image))
            for seed, frame, image in zip(seeds, frames, zip(*raw, strict=True), strict=True)
        ]

    def _instances(self, known: SemanticMap, seeds: Float[Tensor, "C h w"], raw: Raw) -> Instances:
        inside = known.foreground
        label, places = known.label[inside], self.embedding(raw.offset)[:, inside].T
        deviation = (2 * (10 * raw.width.float()).exp()).rsqrt()[:, inside].T
        seed = seeds[:, inside].amax(dim=0)
        (found,) = self.cluster([Pixels(places, inside.nonzero(), label, seed, deviation)])
        count = len(found.centres)
        if not count:
            return Instances.empty(known.frame.photo, inside.device)
        own = found.member >= 0
        sure = seed.new_zeros(count).scatter_reduce(0, found.member[own], seed[own], reduce="amax")
        probability = known.probabilities[:, inside].gather(0, label[None])[0]
        classes = majority(found.member, label, count, len(self.classes))
        groups = Groups(found.member, probability, found.distance, classes, sure)
        return drawn(groups, known, self.score, self.smallest, self.point)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map."""
        found = []
        images = zip(raw.seed.float().sigmoid(), zip(*raw, strict=True), batch.targets, batch.frames, strict=True)
        for seeds, image, target, frame in images:
            cells = true_cells(target, self.mask_stride)
            classes = true_classes(cells, target, len(self.classes))
            known = SemanticMap(certain(classes, len(self.classes) + 1), frame, self.mask_stride)
            found.append(self._instances(known, seeds, Raw(*image)))
        return found

    def semantic_areas(self, raw: Raw, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        return semantic_areas(
            torch.stack([_with_background(seed) for seed in raw.seed.float().sigmoid()]), batch, self.mask_stride
        )

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        return redrawn(batch, self.mask_stride)


def _with_background(seeds: Float[Tensor, "*B C h w"]) -> Float[Tensor, "*B D h w"]:
    """Seeds as the probabilities of a semantic map: background is what no class is."""
    return torch.cat([seeds, 1 - seeds.amax(dim=-3, keepdim=True)], dim=-3)
