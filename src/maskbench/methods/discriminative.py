"""Pull/push embedding: pixels of an object lie together, then clustering finds the objects.

De Brabandere, Neven & Van Gool, "Semantic Instance Segmentation with a Discriminative Loss Function", CVPRW 2017,
arXiv 1708.02551.

B images   N objects of an image   C classes   E embedding dimensions   h w cells at stride 4   P foreground cells
M clusters   K instances
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, zero_of
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import mean_shift
from maskbench.ops.losses import pull_push
from maskbench.ops.masks import instances_of, label_map, shrink, to_photo
from maskbench.ops.suppress import best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Class logits (the last class is background) and embedding of every cell."""

    semantic: Float[Tensor, "B C+1 h w"]
    embedding: Float[Tensor, "B E h w"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of one image's foreground cells."""

    member: Int64[Tensor, " P"]
    """Cluster of each cell."""
    distance: Float[Tensor, " P"]
    """Of each cell to its cluster's mean, in bandwidths."""
    probability: Float[Tensor, " P"]
    """Of each cell's class."""
    count: int

    def mean(self, values: Float[Tensor, " P"]) -> Float[Tensor, " M"]:
        """Mean over the cells of each cluster."""
        total = values.new_zeros(self.count).index_add(0, self.member, values)
        return total / torch.bincount(self.member, minlength=self.count).clamp(min=1)


def constant(clusters: Clusters) -> Float[Tensor, " M"]:
    """1 for every instance, as the authors evaluate."""
    return clusters.probability.new_ones(clusters.count)


def semantic(clusters: Clusters) -> Float[Tensor, " M"]:
    """Mean probability of the class over the mask."""
    return clusters.mean(clusters.probability)


def semantic_x_compactness(clusters: Clusters) -> Float[Tensor, " M"]:
    """Mean probability of the class × how closely the embeddings lie around their mean."""
    return semantic(clusters) * clusters.mean((-0.5 * clusters.distance**2).exp())


SCORES: dict[str, Callable[[Clusters], Float[Tensor, " M"]]] = {
    rule.__name__: rule for rule in (constant, semantic, semantic_x_compactness)
}
"""A cluster has no natural score, and the rule alone moves AP; it stands in the table by its name."""


class Discriminative(Segmenter):
    """Semantic segmentation, an embedding trained by pull and push, and mean-shift on the foreground.

    Margins and weights are the paper's; the bandwidth is that of the authors' released code (push margin, not pull
    margin as in the text). Semantic and embedding branch are by default on a feature pyramid, so that the backbone is
    used as by every other method; the embedding is told where its cells are.

    Args:
        decoder: from the backbone's maps to a map a branch at stride 4.
        dimensions: of the embedding.
        pull_margin: δ_v, and push_margin: δ_d, of the loss.
        weights: of pull, push and regulariser (α, β, γ).
        embedding_weight: of the three together, against the semantic loss.
        bandwidth: of mean-shift.
        iterations: of mean-shift.
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
        dimensions: int = 8,
        pull_margin: float = 0.5,
        push_margin: float = 1.5,
        weights: tuple[float, float, float] = (1.0, 1.0, 0.001),
        embedding_weight: float = 1.0,
        bandwidth: float = 1.5,
        iterations: int = 10,
        smallest: int = 4,
        score: str = "semantic_x_compactness",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if score not in SCORES:
            raise ConfigError(f"score rule {score!r}; expected one of {', '.join(SCORES)}")
        self.pull_margin, self.push_margin, self.weights = pull_margin, push_margin, weights
        self.embedding_weight, self.bandwidth, self.iterations = embedding_weight, bandwidth, iterations
        self.smallest, self.score = smallest, score
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False, True))
        self.classify = predictor(self.decoder.width, len(self.classes) + 1, kernel=1)
        self.embed = predictor(self.decoder.width, dimensions, kernel=1)
        # Embeddings that start all alike, as with the small weights of other heads, take epochs to part.
        nn.init.normal_(self.embed.weight, std=self.decoder.width**-0.5)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        semantic, embedding = self.decoder(self.backbone(images))
        return Raw(self.classify(semantic), self.embed(embedding))

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        drawn = [label_map(shrink(target.masks.dense(), self.mask_stride)) for target in batch.targets]
        classes = [self._classes(cells, target) for cells, target in zip(drawn, batch.targets, strict=True)]
        terms = [
            self._embedding_terms(embedding, cells, target.labels)
            for embedding, cells, target in zip(raw.embedding, drawn, batch.targets, strict=True)
        ]
        pull, push, regulariser = (torch.stack(term).mean() for term in zip(*terms, strict=True))
        alpha, beta, gamma = (self.embedding_weight * weight for weight in self.weights)
        return {
            "semantic": F.cross_entropy(raw.semantic.float(), torch.stack(classes)),
            "pull": alpha * pull,
            "push": beta * push,
            "regulariser": gamma * regulariser,
        }

    def _cells(self, target: Instances) -> Int64[Tensor, "h w"]:
        """The instance of each cell, −1 where there is none."""
        return label_map(shrink(target.masks.dense().to(target.boxes.device), self.mask_stride))

    def _classes(self, cells: Int64[Tensor, "h w"], target: Instances) -> Int64[Tensor, "h w"]:
        """Class of each cell; the number of classes stands for background."""
        labels = torch.cat([target.labels, target.labels.new_tensor([len(self.classes)])])
        return labels[cells]

    def _embedding_terms(
        self, embedding: Float[Tensor, "E h w"], cells: Int64[Tensor, "h w"], labels: Int64[Tensor, " N"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside = cells >= 0
        terms = pull_push(embedding[:, inside].T, cells[inside], labels, self.pull_margin, self.push_margin)
        nothing = zero_of(embedding)
        return terms[0] + nothing, terms[1] + nothing, terms[2] + nothing

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        probabilities = raw.semantic.float().softmax(dim=1)
        return [
            self._instances(probability, embedding.float(), frame)
            for probability, embedding, frame in zip(probabilities, raw.embedding, frames, strict=True)
        ]

    def _instances(
        self, probabilities: Float[Tensor, "_ h w"], embedding: Float[Tensor, "E h w"], frame: Frame
    ) -> Instances:
        probability, label = probabilities.max(dim=0)
        foreground = (label < len(self.classes)) & _inside(label.shape, frame, self.mask_stride, label.device)
        labels = label[foreground]
        points = self._apart(embedding[:, foreground].T, labels)
        member, modes = mean_shift(points, self.bandwidth, iterations=self.iterations)
        distance = torch.linalg.vector_norm(points - modes[member], dim=1) / self.bandwidth
        clusters = Clusters(member, distance, probability[foreground], len(modes))
        kept, scores = self._best(clusters)
        label = labels.new_zeros(clusters.count).index_copy(0, member, labels)[kept]
        maps = _around(kept, member, foreground) * _against_rivals(probabilities)[label]
        return instances_of(to_photo(maps, frame, self.mask_stride), label, scores)

    def _apart(self, points: Float[Tensor, "P E"], labels: Int64[Tensor, " P"]) -> Float[Tensor, "P E+1"]:
        """Embeddings with one coordinate more, which keeps classes beyond any bandwidth: all cluster at once.

        The classes found are numbered anew, since distances in single precision suffer from a large coordinate.
        """
        rank = labels.unique(return_inverse=True)[1]
        return torch.cat([points, 10 * self.bandwidth * rank[:, None]], dim=1)

    def _best(self, clusters: Clusters) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
        """The clusters that are instances, and their scores, descending."""
        size = torch.bincount(clusters.member, minlength=clusters.count)
        scores = SCORES[self.score](clusters) * (size >= self.smallest)
        kept = best(scores, self.point.max_instances)
        kept = kept[scores[kept] > self.point.score_threshold]
        return kept, scores[kept]

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What clustering finds in the true semantic map."""
        drawn = []
        for embedding, target, frame in zip(raw.embedding, batch.targets, batch.frames, strict=True):
            classes = self._classes(self._cells(target), target)
            known = F.one_hot(classes, len(self.classes) + 1).permute(2, 0, 1).float()
            drawn.append(self._instances(known, embedding.float(), frame))
        return drawn

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        stages = []
        for target in batch.targets:
            cells = self._cells(target)
            sizes = torch.bincount(cells[cells >= 0], minlength=len(target))
            stages.append({f"{self.smallest} cells of its own": (int((sizes >= self.smallest).sum()), len(target))})
        return stages

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        drawn = []
        for target, frame in zip(batch.targets, batch.frames, strict=True):
            cells = self._cells(target)
            maps = (cells[None] == torch.arange(len(target), device=cells.device)[:, None, None]).float()
            drawn.append(instances_of(to_photo(maps, frame, self.mask_stride), target.labels, target.scores))
        return drawn


def _inside(size: Sequence[int], frame: Frame, stride: int, device: torch.device) -> Bool[Tensor, "h w"]:
    """The cells that the photo covers; beyond them is padding."""
    rows = torch.arange(size[0], device=device) * stride < frame.resized[0]
    columns = torch.arange(size[1], device=device) * stride < frame.resized[1]
    return rows[:, None] & columns[None]


def _around(
    kept: Int64[Tensor, " K"], member: Int64[Tensor, " P"], foreground: Bool[Tensor, "h w"]
) -> Bool[Tensor, "K h w"]:
    """The cells of each cluster, and the background that touches them: between the two runs its outline."""
    cells = torch.full(foreground.shape, -1, dtype=torch.long, device=foreground.device)
    cells[foreground] = member
    own = cells == kept[:, None, None]
    touched = F.max_pool2d(own[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0
    return own | (touched & ~foreground)


def _against_rivals(probabilities: Float[Tensor, "C h w"]) -> Float[Tensor, "C h w"]:
    """p / (p + that of the strongest other class): above one half where a class wins, so that outlines interpolate."""
    top = probabilities.topk(2, dim=0)
    rivals = top.values[:1].repeat(len(probabilities), 1, 1).scatter(0, top.indices[:1], top.values[1:])
    return probabilities / (probabilities + rivals)
