"""Centres and offsets: every pixel of an object points at its centre, and joins the centre it points at.

Cheng et al., "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation", CVPR 2020,
arXiv 1911.10194; details as in detectron2's project of that name.

B images   N objects of an image   C classes   h w cells at stride 4   P foreground cells   M centres
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import ConvNormReLU, predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.nn.quality import MaskQuality
from maskbench.ops.cluster import nearest
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
from maskbench.ops.masks import centres_of_mass
from maskbench.ops.suppress import best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """What every cell says: its class (the last is background), how near a centre it is, and where its own lies."""

    semantic: Float[Tensor, "B C+1 h w"]
    heat: Float[Tensor, "B 1 h w"]
    offset: Float[Tensor, "B 2 h w"]
    """To the row and column of the centre, in cells."""
    features: Float[Tensor, "B F h w"] | None = None
    """What is seen there, if masks are scored by it."""


class Centres(NamedTuple):
    """Cells taken for centres of objects, and how sure each is."""

    cell: Float[Tensor, "M 2"]
    heat: Float[Tensor, " M"]


class Truth(NamedTuple):
    """What the cells of an image learn."""

    label: Int64[Tensor, "h w"]
    weight: Float[Tensor, "h w"]
    """Of the semantic loss."""
    heat: Float[Tensor, "h w"]
    offset: Float[Tensor, "2 h w"]
    inside: Bool[Tensor, "h w"]


class CentreOffset(Segmenter):
    """Semantic segmentation, a heat map of centres, and offsets by which foreground finds its centre.

    Pixels of the paper's full resolution are cells at stride 4 here, so lengths are given in pixels of the network
    input, and offsets learn in them too.

    Args:
        decoder: from the backbone's maps to a map for the classes and one for centres and offsets.
        class_width: channels of the convolution before the classes.
        centre_width: of those before the heat map and before the offsets.
        sigma: of a centre's bump in the heat map, in pixels.
        weights: of semantic, heat and offset loss.
        hard: share of the cells, those of the largest semantic loss, that learn (0.2 for Cityscapes, all for COCO).
        small: what cells of an object of fewer than so many pixels weigh in the semantic loss: (pixels, weight).
        threshold: that a centre must be above in the heat map.
        window: pixels a side around a centre in which none is hotter.
        centres: of an image, at most.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `SCORES`.
    """

    paradigm = "bottom-up"
    default_point = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=100)
    oracles = ("semantic map", "centres", "count")
    mask_stride = 4

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        class_width: int = 256,
        centre_width: int = 32,
        sigma: float = 8.0,
        weights: tuple[float, float, float] = (1.0, 200.0, 0.01),
        hard: float = 1.0,
        small: tuple[float, float] = (4096, 3.0),
        threshold: float = 0.1,
        window: int = 41,
        centres: int = 200,
        smallest: int = 4,
        score: str = "semantic_x_centre",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.sigma, self.weights, self.hard, self.small = sigma / self.mask_stride, weights, hard, small
        self.threshold, self.centres, self.smallest, self.score = (
            threshold,
            centres,
            smallest,
            known_rule(score, learns=True),
        )
        self.reach_of_centre = round((window - 1) / 2 / self.mask_stride)
        self.decoder = decoder(self.backbone.channels, self.backbone.strides, (False, False))
        self.classify = _head(self.decoder.width, class_width, len(self.classes) + 1)
        self.heat = _head(self.decoder.width, centre_width, 1)
        self.offset = _head(self.decoder.width, centre_width, 2)
        self.quality = MaskQuality(self.decoder.width) if score == "learned" else None

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        classes, centres = self.decoder(self.backbone(images))
        features = classes if self.quality else None
        return Raw(self.classify(classes), self.heat(centres), self.offset(centres), features)

    # Targets ---------------------------------------------------------------------------------------------------------

    def truth(self, target: Instances) -> Truth:
        cells = true_cells(target, self.mask_stride)
        inside, centres = cells >= 0, self.true_centres(cells, len(target))
        own = torch.cat([centres, centres.new_zeros(1, 2)])[cells]  # −1, no object, is the last
        pixels, weight = self.small
        small = torch.bincount(cells[inside], minlength=len(target)) * self.mask_stride**2 < pixels
        lighter = torch.cat([small, small.new_zeros(1)])[cells]
        return Truth(
            true_classes(cells, target, len(self.classes)),
            1 + (weight - 1) * lighter,
            self.bumps(centres[~centres.isnan().any(dim=1)], cells.shape),
            (own - position(cells.shape, cells.device)).permute(2, 0, 1),
            inside,
        )

    @staticmethod
    def true_centres(cells: Int64[Tensor, "h w"], count: int) -> Float[Tensor, "N 2"]:
        """The centre of mass of each object's cells (section 3.2), no number where it has none."""
        masks = cells[None] == torch.arange(count, device=cells.device)[:, None, None]
        return centres_of_mass(masks).masked_fill(~masks.flatten(1).any(dim=1, keepdim=True), torch.nan)

    def bumps(self, centres: Float[Tensor, "N 2"], size: Sequence[int]) -> Float[Tensor, "h w"]:
        """1 in the cell of each centre, falling as a Gaussian does; where bumps meet the higher one counts."""
        rows, columns = (
            (torch.arange(side, device=centres.device) - centres[:, axis, None].round()) ** 2
            for axis, side in enumerate(size)
        )
        squared = torch.full(tuple(size), torch.inf, device=centres.device)
        for row, column in zip(rows, columns, strict=True):
            squared = squared.minimum(row[:, None] + column)
        return (-squared / (2 * self.sigma**2)).exp()

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        truth = Truth(*map(torch.stack, zip(*(self.truth(target) for target in batch.targets), strict=True)))
        semantic, heat, offset = self.weights
        return {
            "semantic": semantic * self.semantic_loss(raw.semantic.float(), truth),
            "heat": heat * F.mse_loss(raw.heat[:, 0].float(), truth.heat),
            "offset": offset * self.mask_stride * self.offset_loss(raw.offset.float(), truth),
            **self._quality_loss(raw, batch),
        }

    def semantic_loss(self, logits: Float[Tensor, "B C h w"], truth: Truth) -> Float[Tensor, ""]:
        """Mean cross-entropy over the hardest cells of the batch, those of small objects weighing more (DeeperLab)."""
        losses = (truth.weight * F.cross_entropy(logits, truth.label, reduction="none")).flatten()
        return losses.topk(max(1, round(self.hard * len(losses)))).values.mean()

    @staticmethod
    def offset_loss(offset: Float[Tensor, "B 2 h w"], truth: Truth) -> Float[Tensor, ""]:
        """The distance along both axes, the mean over all cells of objects, in cells."""
        apart = (offset - truth.offset.nan_to_num(0)).abs().sum(dim=1)
        return (apart * truth.inside).sum() / truth.inside.sum().clamp(min=1)

    def _quality_loss(self, raw: Raw, batch: Batch) -> dict[str, Tensor]:
        """How well the quality of what is found now is told, if it is."""
        if self.quality is None or raw.features is None:
            return {}
        with torch.no_grad():
            probabilities = raw.semantic.float().softmax(dim=1)
            maps = [SemanticMap(*image, self.mask_stride) for image in zip(probabilities, batch.frames, strict=True)]
            centres = [self.peaks(heat[0], frame) for heat, frame in zip(raw.heat.float(), batch.frames, strict=True)]
            groups = [self._groups(*image) for image in zip(maps, centres, raw.offset.float(), strict=True)]
        cells = [true_cells(target, self.mask_stride) for target in batch.targets]
        return {"quality": self.quality.loss(raw.features, groups, maps, cells)}

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        probabilities = raw.semantic.float().softmax(dim=1)
        found = []
        for row, (probability, heat, frame) in enumerate(zip(probabilities, raw.heat.float(), frames, strict=True)):
            known = SemanticMap(probability, frame, self.mask_stride)
            found.append(self._drawn(known, self.peaks(heat[0], frame), raw, row))
        return found

    def _drawn(self, known: SemanticMap, centres: Centres, raw: Raw, row: int) -> Instances:
        groups = self._groups(known, centres, raw.offset[row].float())
        if self.quality is not None and raw.features is not None:
            groups = self.quality.scored(raw.features[row], groups, known)
        return drawn(groups, known, self.score, self.smallest, self.point)

    def _groups(self, known: SemanticMap, centres: Centres, offset: Float[Tensor, "2 h w"]) -> Groups:
        """Foreground goes to the centre nearest to where it points, and a centre is of the class of most of it."""
        foreground, count = known.foreground, len(centres.heat)
        label = known.label[foreground]
        if count:
            distance, member = nearest(foreground.nonzero() + offset[:, foreground].T, centres.cell)
        else:
            distance, member = torch.full_like(label, torch.inf, dtype=offset.dtype), torch.full_like(label, -1)
        classes = majority(member, label, count, len(self.classes))
        own = classes[member] if count else label
        probability = known.probabilities[:, foreground].gather(0, own[None])[0]
        return Groups(member, probability, distance / self.sigma, classes, centres.heat.clamp(0, 1))

    def peaks(self, heat: Float[Tensor, "h w"], frame: Frame, threshold: float | None = None) -> Centres:
        """The cells of the photo that are hottest around and hot enough, the hottest first (section 3.3)."""
        side = 2 * self.reach_of_centre + 1
        hottest = F.max_pool2d(heat[None], side, stride=1, padding=self.reach_of_centre)[0] == heat
        height, width = (-(-length // self.mask_stride) for length in frame.resized)
        cell = (hottest & (heat > (self.threshold if threshold is None else threshold)))[:height, :width].nonzero()
        kept = best(heat[cell[:, 0], cell[:, 1]], self.centres)
        return Centres(cell[kept].float(), heat[cell[kept, 0], cell[kept, 1]])

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map, around the true centres, or around the N hottest cells of N."""
        found = []
        images = zip(raw.semantic.float().softmax(dim=1), raw.heat.float(), batch.targets, batch.frames, strict=True)
        for row, (probability, heat, target, frame) in enumerate(images):
            cells, centres = true_cells(target, self.mask_stride), self.peaks(heat[0], frame)
            if oracle == "semantic map":
                classes = true_classes(cells, target, len(self.classes))
                probability = certain(classes, len(self.classes) + 1)
            elif oracle == "centres":
                cell = self.true_centres(cells, len(target))
                cell = cell[~cell.isnan().any(dim=1)]
                centres = Centres(cell, torch.ones_like(cell[:, 0]))
            else:
                centres = Centres(*(part[: len(target)] for part in self.peaks(heat[0], frame, threshold=-torch.inf)))
            found.append(self._drawn(SemanticMap(probability, frame, self.mask_stride), centres, raw, row))
        return found

    def semantic_areas(self, raw: Raw, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        return semantic_areas(raw.semantic, batch, self.mask_stride)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        return enough_cells(batch, self.mask_stride, self.smallest)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth as one label a cell at stride 4."""
        return redrawn(batch, self.mask_stride)


def _head(channels: int, width: int, outputs: int) -> nn.Sequential:
    """A 5 × 5 convolution and the one that predicts (section 3.1; the paper's is separable)."""
    return nn.Sequential(ConvNormReLU(channels, width, kernel=5, std=None), predictor(width, outputs, kernel=1))
