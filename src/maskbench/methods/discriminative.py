"""Pull/push embedding: pixels of an object lie together, then clustering finds the objects.

De Brabandere, Neven & Van Gool, "Semantic Instance Segmentation with a Discriminative Loss Function", CVPRW 2017,
arXiv 1708.02551.

B images   N objects of an image   C classes   E embedding dimensions   F channels   h w cells   P foreground cells
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import predictor, zero_of
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import Clusterer, Grouping, MeanShift, Pixels, nearest
from maskbench.ops.grouping import Groups, SemanticMap, of_clusters
from maskbench.ops.losses import Reduction, pull_push
from maskbench.structures import Batch, Instances


class Raw(NamedTuple):
    """Class logits (the last class is background) and embedding of every cell."""

    semantic: Float[Tensor, "B C+1 h w"]
    embedding: Float[Tensor, "B E h w"]
    features: Float[Tensor, "B F h w"] | None = None
    """What is seen there, if masks are scored by it."""


class Discriminative(BottomUp):
    """Semantic segmentation, an embedding trained by pull and push, and clustering of the foreground.

    Margins and weights are the paper's; the bandwidth is that of the authors' released code (push margin, not pull
    margin as in the text). Semantic and embedding branch are decoders on a feature pyramid, so that the backbone is
    used as by every other method.

    Args:
        decoder: from the backbone's maps to a map for the classes and one for the embedding.
        cluster: how embeddings become objects.
        dimensions: of the embedding.
        coordinates: whether the embedding's branch sees where a cell lies; without, two objects that look alike are
            told apart only by what surrounds them.
        per_class: whether instances are told apart among those of their class alone, and clustered so; if not, a
            cluster is of the class that most of its cells are of.
        pull_margin: δ_v, and push_margin: δ_d, of the loss.
        weights: of pull, push and regulariser (α, β, γ).
        reduction: over instances, pairs and pixels, one of "paper", "authors" and "pixels" (`ops.losses.pull_push`).
        embedding_weight: of the three together, against the semantic loss.
        bandwidths: of the clusterer, of which the tune split chooses one after training (none: it keeps its own).
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    oracles = ("semantic map", "centres", "count")

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        cluster: Clusterer = MeanShift(),
        dimensions: int = 8,
        coordinates: bool = True,
        per_class: bool = True,
        pull_margin: float = 0.5,
        push_margin: float = 1.5,
        weights: tuple[float, float, float] = (1.0, 1.0, 0.001),
        reduction: str = "paper",
        embedding_weight: float = 1.0,
        bandwidths: Sequence[float] = (),
        smallest: int = 4,
        score: str = "semantic_x_compactness",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False, coordinates), smallest=smallest, score=score, **common)
        if reduction not in get_args(Reduction):
            raise ConfigError(f"reduction={reduction!r}: expected one of {', '.join(get_args(Reduction))}")
        self.margins, self.weights, self.reduction = (pull_margin, push_margin), weights, reduction
        self.embedding_weight, self.per_class, self.cluster = embedding_weight, per_class, cluster
        if not isinstance(bandwidths, Sequence) or not all(value > 0 for value in bandwidths):
            raise ConfigError(f"bandwidths={bandwidths}: expected a list of numbers above 0, such as [1.0, 1.5]")
        if bandwidths and not hasattr(cluster, "bandwidth"):
            raise ConfigError(
                f"bandwidths={list(bandwidths)}, but {type(cluster).__name__} has no bandwidth: leave them out, "
                "or take method/cluster=mean_shift"
            )
        self.bandwidths = tuple(bandwidths)
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.embed = predictor(self.decoder.width, dimensions, kernel=1)
        # Embeddings that start all alike, as with the small weights of other heads, take epochs to part.
        nn.init.normal_(self.embed.weight, std=self.decoder.width**-0.5)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        classes, embedding = self.decoder(self.backbone(images))
        return Raw(self.classify(classes), self.embed(embedding), self.features_of(classes))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw, truth = self(self.prepare(batch)), self.true_maps(batch)
        images = zip(raw.embedding, truth.cells, batch.targets, strict=True)
        terms = [self._embedding_terms(embedding, cells, target.labels) for embedding, cells, target in images]
        pull, push, regulariser = (torch.stack(term).mean() for term in zip(*terms, strict=True))
        alpha, beta, gamma = (self.embedding_weight * weight for weight in self.weights)
        return {
            "semantic": F.cross_entropy(raw.semantic.float(), truth.classes),
            "pull": alpha * pull,
            "push": beta * push,
            "regulariser": gamma * regulariser,
            **self.quality_loss(raw, batch, truth),
        }

    def _embedding_terms(
        self, embedding: Float[Tensor, "E h w"], cells: Int64[Tensor, "h w"], labels: Int64[Tensor, " N"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside = cells >= 0
        labels = labels if self.per_class else torch.zeros_like(labels)
        terms = pull_push(embedding[:, inside].T, cells[inside], labels, *self.margins, reduction=self.reduction)
        nothing = zero_of(embedding)
        return terms[0] + nothing, terms[1] + nothing, terms[2] + nothing

    # Prediction ------------------------------------------------------------------------------------------------------

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        return of_clusters(maps, self.cluster(self.pixels(raw, maps)))

    def pixels(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Pixels]:
        """What is clustered of each image."""
        images = []
        for known, embedding in zip(maps, raw.embedding.float(), strict=True):
            inside = known.foreground
            label = known.label[inside] * self.per_class
            images.append(Pixels(embedding[:, inside].T, inside.nonzero(), label, torch.ones_like(label).float()))
        return images

    @property
    def choices(self) -> dict[str, tuple[float, ...]]:
        return {"bandwidth": self.bandwidths} if self.bandwidths else {}

    def choose(self, setting: str, value: float) -> None:
        self.cluster = replace(self.cluster, bandwidth=value)  # type: ignore[type-var]

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What clustering finds in the true semantic map, what goes to the true means, or the N best clusters of N."""
        if oracle == "semantic map":
            return super().given(raw, batch, oracle)
        if oracle == "count":
            found = self.instances(raw, batch.frames)
            return [image[: len(target)] for image, target in zip(found, batch.targets, strict=True)]
        maps = self.maps(raw, batch.frames)
        pixels, cells = self.pixels(raw, maps), self.true_maps(batch).cells
        images = zip(pixels, raw.embedding.float(), cells, batch.targets, strict=True)
        return self.drawn(raw, maps, of_clusters(maps, [self._joined(*image) for image in images]))

    def _joined(
        self, pixels: Pixels, embedding: Float[Tensor, "E h w"], cells: Int64[Tensor, "h w"], target: Instances
    ) -> Grouping:
        """Every pixel with the nearest mean of an object of its class; the push margin stands for a bandwidth."""
        objects, own = cells[cells >= 0].unique(return_inverse=True)
        total = embedding.new_zeros(len(objects), len(embedding)).index_add(0, own, embedding[:, cells >= 0].T)
        means = total / torch.bincount(own, minlength=len(objects))[:, None]
        classes = target.labels[objects] * self.per_class
        member, distance = torch.full_like(pixels.label, -1), torch.full_like(pixels.seed, torch.inf)
        for label in classes.unique():
            rows, rivals = (pixels.label == label).nonzero()[:, 0], (classes == label).nonzero()[:, 0]
            if len(rows):
                away, which = nearest(pixels.embedding[rows], means[rivals])
                member[rows], distance[rows] = rivals[which], away / self.margins[1]
        return Grouping(member, means, distance)
