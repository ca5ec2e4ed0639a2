"""Pull/push embedding: pixels of an object lie together, then clustering finds the objects.

De Brabandere, Neven & Van Gool, "Semantic Instance Segmentation with a Discriminative Loss Function", CVPRW 2017,
arXiv 1708.02551.

B images   N objects of an image   C classes   E embedding dimensions   h w cells at stride 4   P foreground cells
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
from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, zero_of
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.nn.quality import MaskQuality
from maskbench.ops.cluster import Clusterer, Grouping, MeanShift, Pixels, nearest
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
from maskbench.ops.losses import Reduction, pull_push
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits (the last class is background) and embedding of every cell; what is seen there, if it is scored."""

    semantic: Float[Tensor, "B C+1 h w"]
    embedding: Float[Tensor, "B E h w"]
    features: Float[Tensor, "B F h w"] | None = None


class Discriminative(Segmenter):
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

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles = ("semantic map", "centres", "count")
    mask_stride = 4

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        cluster: Clusterer = MeanShift(bandwidth=1.5, iterations=10),
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
        super().__init__(**common)
        if reduction not in get_args(Reduction):
            raise ConfigError(f"reduction={reduction!r}: expected one of {', '.join(get_args(Reduction))}")
        self.margins, self.weights, self.reduction = (pull_margin, push_margin), weights, reduction
        self.embedding_weight, self.per_class, self.cluster = embedding_weight, per_class, cluster
        if bandwidths and not hasattr(cluster, "bandwidth"):
            raise ConfigError(f"bandwidths={list(bandwidths)}, but {type(cluster).__name__} has no bandwidth")
        self.bandwidths = tuple(bandwidths)
        self.smallest, self.score = smallest, known_rule(score, learns=True)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False, coordinates))
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.embed = predictor(self.decoder.width, dimensions, kernel=1)
        self.quality = MaskQuality(self.decoder.width) if score == "learned" else None
        # Embeddings that start all alike, as with the small weights of other heads, take epochs to part.
        nn.init.normal_(self.embed.weight, std=self.decoder.width**-0.5)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        classes, embedding = self.decoder(self.backbone(images))
        return Raw(self.classify(classes), self.embed(embedding), classes if self.quality else None)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        cells = [true_cells(target, self.mask_stride) for target in batch.targets]
        classes = [true_classes(*image, len(self.classes)) for image in zip(cells, batch.targets, strict=True)]
        images = zip(raw.embedding, cells, batch.targets, strict=True)
        terms = [self._embedding_terms(embedding, own, target.labels) for embedding, own, target in images]
        pull, push, regulariser = (torch.stack(term).mean() for term in zip(*terms, strict=True))
        alpha, beta, gamma = (self.embedding_weight * weight for weight in self.weights)
        return {
            "semantic": F.cross_entropy(raw.semantic.float(), torch.stack(classes)),
            "pull": alpha * pull,
            "push": beta * push,
            "regulariser": gamma * regulariser,
            **self._quality_loss(raw, batch, cells),
        }

    def _embedding_terms(
        self, embedding: Float[Tensor, "E h w"], cells: Int64[Tensor, "h w"], labels: Int64[Tensor, " N"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside = cells >= 0
        labels = labels if self.per_class else torch.zeros_like(labels)
        terms = pull_push(embedding[:, inside].T, cells[inside], labels, *self.margins, reduction=self.reduction)
        nothing = zero_of(embedding)
        return terms[0] + nothing, terms[1] + nothing, terms[2] + nothing

    def _quality_loss(self, raw: Raw, batch: Batch, cells: Sequence[Int64[Tensor, "h w"]]) -> dict[str, Tensor]:
        """How well the quality of what is found now is told, if it is."""
        if self.quality is None or raw.features is None:
            return {}
        with torch.no_grad():
            maps = self._maps(raw.semantic.float().softmax(dim=1), batch.frames)
            found = self.cluster(self._pixels(maps, raw.embedding))
            groups = [self._groups(*image) for image in zip(maps, found, strict=True)]
        return {"quality": self.quality.loss(raw.features, groups, maps, cells)}

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        maps = self._maps(raw.semantic.float().softmax(dim=1), frames)
        found = self.cluster(self._pixels(maps, raw.embedding))
        return self._drawn(maps, found, raw)

    def _maps(self, probabilities: Float[Tensor, "B _ h w"], frames: Sequence[Frame]) -> list[SemanticMap]:
        return [SemanticMap(*image, self.mask_stride) for image in zip(probabilities, frames, strict=True)]

    def _pixels(self, maps: Sequence[SemanticMap], embeddings: Float[Tensor, "B E h w"]) -> list[Pixels]:
        """What is clustered of each image."""
        images = []
        for known, embedding in zip(maps, embeddings.float(), strict=True):
            inside = known.foreground
            label = known.label[inside] * self.per_class
            images.append(Pixels(embedding[:, inside].T, inside.nonzero(), label, torch.ones_like(label).float()))
        return images

    def _groups(self, known: SemanticMap, found: Grouping) -> Groups:
        inside = known.foreground
        label = majority(found.member, known.label[inside], len(found.centres), len(self.classes))
        probability = known.probabilities[:, inside].amax(dim=0)
        return Groups(found.member, probability, found.distance, label, probability.new_ones(len(found.centres)))

    def _drawn(self, maps: Sequence[SemanticMap], found: Sequence[Grouping], raw: Raw) -> list[Instances]:
        """The clusters of each image as instances."""
        drawings = []
        for row, (known, grouping) in enumerate(zip(maps, found, strict=True)):
            groups = self._groups(known, grouping)
            if self.quality is not None and raw.features is not None:
                groups = self.quality.scored(raw.features[row], groups, known)
            drawings.append(drawn(groups, known, self.score, self.smallest, self.point))
        return drawings

    @property
    def choices(self) -> dict[str, tuple[float, ...]]:
        return {"bandwidth": self.bandwidths} if self.bandwidths else {}

    def choose(self, setting: str, value: float) -> None:
        self.cluster = replace(self.cluster, bandwidth=value)  # type: ignore[type-var]

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What clustering finds in the true semantic map, what goes to the true means, or the N best clusters of N."""
        cells = [true_cells(target, self.mask_stride) for target in batch.targets]
        probabilities = raw.semantic.float().softmax(dim=1)
        if oracle == "semantic map":
            classes = [true_classes(*image, len(self.classes)) for image in zip(cells, batch.targets, strict=True)]
            probabilities = torch.stack([certain(image, len(self.classes) + 1) for image in classes])
        maps = self._maps(probabilities, batch.frames)
        pixels = self._pixels(maps, raw.embedding)
        if oracle == "centres":
            means = [_means(*image) for image in zip(raw.embedding.float(), cells, strict=True)]
            found = [_joined(*image) for image in zip(pixels, means, strict=True)]
        else:
            found = self.cluster(pixels)
        most = [len(target) if oracle == "count" else None for target in batch.targets]
        return [image[:count] for image, count in zip(self._drawn(maps, found, raw), most, strict=True)]

    def semantic_areas(self, raw: Raw, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        return semantic_areas(raw.semantic, batch, self.mask_stride)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        return redrawn(batch, self.mask_stride)


def _means(embedding: Float[Tensor, "E h w"], cells: Int64[Tensor, "h w"]) -> Float[Tensor, "M E"]:
    """The mean embedding of each object that has a cell."""
    inside = cells >= 0
    objects, own = cells[inside].unique(return_inverse=True)
    total = embedding.new_zeros(len(objects), len(embedding)).index_add(0, own, embedding[:, inside].T)
    return total / torch.bincount(own, minlength=len(objects))[:, None]


def _joined(pixels: Pixels, centres: Float[Tensor, "M E"]) -> Grouping:
    """Every cell with the nearest of the centres."""
    if not len(centres):
        return Grouping(torch.full_like(pixels.label, -1), centres, torch.full_like(pixels.seed, torch.inf))
    distance, member = nearest(pixels.embedding, centres)
    return Grouping(member, centres, distance)
