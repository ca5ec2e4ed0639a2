"""Spatial embeddings: pixels point at their object's centre, within a margin that every object learns for itself.

Neven et al., "Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth", CVPR 2019,
arXiv 1906.11109.

B images   N objects of an image   C classes   F channels   h w cells   P foreground cells   M clusters   K pairs
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from maskbench.methods.base import Common
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import predictor, zero_of
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import Pixels, Seeds
from maskbench.ops.grouping import Groups, SemanticMap, position, shared_out
from maskbench.ops.losses import lovasz_hinge
from maskbench.structures import Batch, Instances

NEAR = 1e-3
"""Cells that an object takes less than this for its own are as good as right, and too many to look at."""
PAIRS = 1 << 22
"""Of an object and a cell, that are looked through at a time: some 100 MB."""


class Raw(NamedTuple):
    """What every cell says: where its centre lies, how far its object reaches, how good a seed of each class it is."""

    offset: Float[Tensor, "B 2 h w"]
    sharpness: Float[Tensor, "B 2 h w"]
    """A tenth of the logarithm of 1 / 2σ², along rows and columns."""
    seed: Float[Tensor, "B C h w"]
    features: Float[Tensor, "B F h w"] | None = None
    """What is seen there, if masks are scored by it."""


class Objects(NamedTuple):
    """What the cells of each object agree on."""

    centre: Float[Tensor, "N 2"]
    sharpness: Float[Tensor, "N 2"]

    def likely(self, places: Float[Tensor, "*#K 2"], which: Int64[Tensor, "*#K"]) -> Float[Tensor, "*#K"]:
        """How much cells are of these objects (eq. 5 and 7): 1 at the centre, one half at the margin."""
        return (-((places - self.centre[which]) ** 2 * (10 * self.sharpness[which]).exp()).sum(dim=-1)).exp()


class SpatialEmbedding(BottomUp):
    """Offsets, margins and seeds, learnt by the IoU of what they cluster.

    Lengths are in units of so many pixels, and no cell points farther than one unit along an axis. The seed map takes
    the place of a semantic map: what is a seed of a class with more than one half is foreground of that class.

    Args:
        decoder: from the backbone's maps to a map for offsets and margins and one for seeds.
        unit: pixels that are 1 (1024: a Cityscapes image is one by two).
        margin: σ that objects begin with, in pixels (4.9 as released).
        weights: of instance, margin and seed loss (section 3.2 and 3.3; 1, 10, 1 as released).
        object_weight: what the seed loss of a cell of an object counts against one of background.
        threshold: that the best seed left must be above to open a cluster.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        unit: float = 1024.0,
        margin: float = 4.9,
        weights: tuple[float, float, float] = (1.0, 10.0, 1.0),
        object_weight: float = 10.0,
        threshold: float = 0.9,
        smallest: int = 4,
        score: str = "semantic_x_centre",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False, False), smallest=smallest, score=score, **common)
        self.step, self.weights, self.object_weight = self.mask_stride / unit, weights, object_weight
        self.cluster = Seeds(bandwidth=1.0, threshold=threshold, smallest=smallest)
        self.offset = predictor(self.decoder.width, 2, kernel=1)
        self.sharpen = predictor(self.decoder.width, 2, kernel=1)
        self.seed = predictor(self.decoder.width, len(self.classes), kernel=1, prior=0.1)
        assert self.sharpen.bias is not None
        nn.init.constant_(self.sharpen.bias, -0.1 * math.log(2 * (margin / unit) ** 2))

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        places, seeds = self.decoder(self.backbone(images))
        return Raw(self.offset(places), self.sharpen(places), self.seed(seeds), self.features_of(seeds))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        """Seeds, and background where no class is one."""
        seeds = raw.seed.float().sigmoid()
        return torch.cat([seeds, 1 - seeds.amax(dim=1, keepdim=True)], dim=1)

    def places(self, offset: Float[Tensor, "2 h w"]) -> Float[Tensor, "h w 2"]:
        """Where each cell points, in units (eq. 4)."""
        return self.step * position(offset.shape[1:], offset.device) + offset.float().tanh().permute(1, 2, 0)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, truth = self(self.prepare(batch)), self.true_maps(batch)
        images = zip(zip(*raw[:3], strict=True), truth.cells, truth.inside, batch.targets, strict=True)
        terms = [self._terms(Raw(*image), cells, target, inside) for image, cells, inside, target in images]
        instance, margin, seed = (torch.stack(term).mean() for term in zip(*terms, strict=True))
        weights = self.weights
        return {
            "instance": weights[0] * instance,
            "margin": weights[1] * margin,
            "seed": weights[2] * seed,
            **self.quality_loss(raw, batch, truth),
        }

    def _terms(
        self, raw: Raw, cells: Int64[Tensor, "h w"], target: Instances, inside: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one image: how well its objects are clustered, how alike the margins of each are, how good the seeds."""
        covered = cells >= 0
        own, size = cells[covered], torch.bincount(cells[covered], minlength=len(target))
        places, sharpness = self.places(raw.offset), raw.sharpness.float().permute(1, 2, 0)
        said = torch.cat([places, sharpness], dim=2)[covered]
        means = said.new_zeros(len(target), 4).index_add(0, own, said) / size.clamp(min=1)[:, None]
        objects, seen = Objects(means[:, :2], means[:, 2:]), (size > 0).sum().clamp(min=1)
        instance, cell = _near(objects, places.flatten(0, 1), cells.flatten(), size)
        likely = objects.likely(places.flatten(0, 1)[cell], instance)
        hinge = lovasz_hinge(2 * likely - 1, cells.flatten()[cell] == instance, instance, len(target))
        apart = ((sharpness[covered] - objects.sharpness.detach()[own]) ** 2).mean(dim=1)
        wanted = objects.likely(places[covered], own).detach()
        nothing = zero_of(*raw[:3])
        margin = (apart / size[own]).sum() / seen
        return (
            hinge.sum() / seen + nothing,
            margin + nothing,
            self._seed_loss(raw.seed, wanted, target.labels[own], covered, inside),
        )

    def _seed_loss(
        self,
        logits: Float[Tensor, "C h w"],
        likely: Float[Tensor, " P"],
        labels: Int64[Tensor, " P"],
        covered: Tensor,
        inside: Tensor,
    ) -> Float[Tensor, ""]:
        """The squared distance to how well a cell points (section 3.3), 0 for background and for other classes."""
        wanted, weight = torch.zeros_like(logits, dtype=torch.float32), torch.ones_like(logits, dtype=torch.float32)
        row, column = covered.nonzero(as_tuple=True)
        wanted[labels, row, column], weight[labels, row, column] = likely, self.object_weight
        apart = (weight * (logits.float().sigmoid() - wanted) ** 2).sum(dim=0)
        return (apart * inside).sum() / inside.sum()

    # Prediction ------------------------------------------------------------------------------------------------------

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        images = zip(maps, zip(*raw[:3], strict=True), strict=True)
        pixels = [self.pixels(known, Raw(*image)) for known, image in images]
        groups = []
        for known, own, found in zip(maps, pixels, self.cluster(pixels), strict=True):
            inside = found.member >= 0
            sure = own.seed.new_zeros(len(found.centres))
            sure = sure.scatter_reduce(0, found.member[inside], own.seed[inside], reduce="amax")
            groups.append(shared_out(known, found.member, found.distance, sure))
        return groups

    def pixels(self, known: SemanticMap, raw: Raw) -> Pixels:
        """What is clustered of an image: with margins, and as seeds of the class that each cell is taken for."""
        inside = known.foreground
        label = known.label[inside]
        seed = raw.seed.float().sigmoid()[:, inside].gather(0, label[None])[0]
        sigma = (2 * (10 * raw.sharpness.float()).exp()).rsqrt()[:, inside].T
        return Pixels(self.places(raw.offset)[inside], inside.nonzero(), label, seed, sigma)


@torch.no_grad()
def _near(
    objects: Objects, places: Float[Tensor, "P 2"], cells: Int64[Tensor, " P"], size: Int64[Tensor, " N"]
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """The pairs of an object and a cell that is its own or that it takes for its own; what has no cell has none."""
    pairs = [torch.zeros((0, 2), dtype=torch.long, device=size.device)]
    for part in size.nonzero().split(max(1, PAIRS // len(places))):  # a column of objects
        likely = objects.likely(places[None], part)
        row, cell = ((likely > NEAR) | (cells == part)).nonzero(as_tuple=True)
        pairs.append(torch.stack([part[row, 0], cell], dim=1))
    instance, cell = torch.cat(pairs).unbind(dim=1)
    return instance, cell
