"""Centres and offsets: every pixel of an object points at its centre, and joins the centre it points at.

Cheng et al., "Panoptic-DeepLab: A Simple, Strong, and Fast Baseline for Bottom-Up Panoptic Segmentation", CVPR 2020,
arXiv 1911.10194; details as in detectron2's project of that name.

B images   N objects of an image   C classes   F channels   h w cells   P foreground cells   M centres
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle
from maskbench.methods.bottom_up import BottomUp
from maskbench.nn.blocks import ConvNormReLU, predictor
from maskbench.nn.decoders import Decoder, semantic_fpn
from maskbench.ops.cluster import nearest
from maskbench.ops.grouping import (
    PADDING,
    Balance,
    Groups,
    SemanticMap,
    known_balance,
    mean_over_objects,
    position,
    shared_out,
)
from maskbench.ops.masks import centres_of_mass
from maskbench.ops.suppress import best, survivors
from maskbench.structures import Batch, Frame, Instances


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
    """What the cells of an image learn beside their classes."""

    weight: Float[Tensor, "h w"]
    """Of the semantic loss."""
    heat: Float[Tensor, "h w"]
    offset: Float[Tensor, "2 h w"]
    """0 where there is no object."""


class CentreOffset(BottomUp):
    """Semantic segmentation, a heat map of centres, and offsets by which foreground finds its centre.

    Pixels of the paper's full resolution are cells here, so lengths are given in pixels of the network input, and
    offsets learn in them too.

    Args:
        decoder: from the backbone's maps to a map for the classes and one for centres and offsets.
        class_width: channels of the convolution before the classes.
        centre_width: of those before the heat map and before the offsets.
        sigma: of a centre's bump in the heat map, in pixels.
        weights: of semantic, heat and offset loss.
        balance: what the offset loss is the mean over: "cells" of objects, as in the paper, or "objects", each the mean
            over its own cells, so that small ones count.
        hard: share of the cells, those of the largest semantic loss, that learn (0.2 for Cityscapes, all for COCO).
        small: what cells of an object of fewer than so many pixels weigh in the semantic loss: (pixels, weight).
        threshold: that a centre must be above in the heat map.
        window: pixels a side around a centre in which none is hotter.
        centres: of an image, at most.
        smallest: cells that an instance must have.
        score: the rule by which an instance gets its score, one of `ops.grouping.SCORES`.
    """

    oracles = ("semantic map", "centres", "count")

    def __init__(
        self,
        *,
        decoder: Decoder = semantic_fpn,
        class_width: int = 256,
        centre_width: int = 32,
        sigma: float = 8.0,
        weights: tuple[float, float, float] = (1.0, 200.0, 0.01),
        balance: Balance = "cells",
        hard: float = 1.0,
        small: tuple[float, float] = (4096, 3.0),
        threshold: float = 0.1,
        window: int = 41,
        centres: int = 200,
        smallest: int = 4,
        score: str = "semantic_x_centre",
        **common: Unpack[Common],
    ) -> None:
        super().__init__(decoder=decoder, coordinates=(False, False), smallest=smallest, score=score, **common)
        self.sigma, self.weights, self.hard, self.small = sigma / self.mask_stride, weights, hard, small
        self.balance, self.threshold, self.centres = known_balance(balance), threshold, centres
        self.reach_of_centre = round((window - 1) / 2 / self.mask_stride)
        self.classify = _head(self.decoder.width, class_width, len(self.classes) + 1)
        self.heat = _head(self.decoder.width, centre_width, 1)
        self.offset = _head(self.decoder.width, centre_width, 2)

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        classes, centres = self.decoder(self.backbone(images))
        return Raw(self.classify(classes), self.heat(centres), self.offset(centres), self.features_of(classes))

    def probabilities(self, raw: Raw) -> Float[Tensor, "B {len(self.classes)+1} h w"]:
        return raw.semantic.float().softmax(dim=1)

    # Targets ---------------------------------------------------------------------------------------------------------

    def truth(self, cells: Int64[Tensor, "h w"], count: int) -> Truth:
        """Of one image, of whose `count` objects the cells are."""
        inside, centres = cells >= 0, self.true_centres(cells, count)
        own = torch.cat([centres, centres.new_zeros(1, 2)])[cells]  # −1, no object, is the last
        pixels, weight = self.small
        small = torch.bincount(cells[inside], minlength=count) * self.mask_stride**2 < pixels
        lighter = torch.cat([small, small.new_zeros(1)])[cells]
        offset = (own - position(cells.shape, cells.device)).permute(2, 0, 1) * inside
        return Truth(1 + (weight - 1) * lighter, self.bumps(centres[~centres.isnan().any(dim=1)], cells.shape), offset)

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
        raw, known = self(self.prepare(batch)), self.true_maps(batch)
        images = [self.truth(cells, len(target)) for cells, target in zip(known.cells, batch.targets, strict=True)]
        truth = Truth(*map(torch.stack, zip(*images, strict=True)))
        semantic, heat, offset = self.weights
        warm = ((raw.heat[:, 0].float() - truth.heat) ** 2)[known.inside].mean()
        return {
            "semantic": semantic * self.semantic_loss(raw.semantic.float(), known.classes, truth.weight),
            "heat": heat * warm,
            "offset": offset * self.mask_stride * self.offset_loss(raw.offset.float(), truth.offset, known.cells),
            **self.quality_loss(raw, batch, known),
        }

    def semantic_loss(
        self, logits: Float[Tensor, "B C h w"], classes: Int64[Tensor, "B h w"], weight: Float[Tensor, "B h w"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy over the hardest cells of the photos, those of small objects weighing more (DeeperLab)."""
        losses = (weight * F.cross_entropy(logits, classes, reduction="none"))[classes != PADDING]
        return losses.topk(max(1, round(self.hard * len(losses)))).values.mean()

    def offset_loss(
        self, offset: Float[Tensor, "B 2 h w"], wanted: Float[Tensor, "B 2 h w"], cells: Int64[Tensor, "B h w"]
    ) -> Float[Tensor, ""]:
        """The distance along both axes, in cells, the mean over what `balance` says."""
        apart = (offset - wanted).abs().sum(dim=1)
        if self.balance == "objects":
            return mean_over_objects(apart, cells)
        inside = cells >= 0
        return (apart * inside).sum() / inside.sum().clamp(min=1)

    # Prediction ------------------------------------------------------------------------------------------------------

    def groups(self, raw: Raw, maps: Sequence[SemanticMap]) -> list[Groups]:
        centres = [self.peaks(heat[0], known.frame) for heat, known in zip(raw.heat.float(), maps, strict=True)]
        return self._joining(raw.offset.float(), maps, centres)

    def _joining(
        self, offsets: Iterable[Float[Tensor, "2 h w"]], maps: Sequence[SemanticMap], centres: Sequence[Centres]
    ) -> list[Groups]:
        """Foreground goes to the centre nearest to where it points, and a centre is of the class of most of it."""
        groups = []
        for known, some, offset in zip(maps, centres, offsets, strict=True):
            pointed = known.foreground.nonzero() + offset[:, known.foreground].T
            distance, member = nearest(pointed, some.cell)
            groups.append(shared_out(known, member, distance / self.sigma, some.heat.clamp(0, 1)))
        return groups

    def peaks(self, heat: Float[Tensor, "h w"], frame: Frame, threshold: float | None = None) -> Centres:
        """The cells of the photo that are hottest around and hot enough, the hottest first (section 3.3).

        Of several that are equally hot around, as half precision makes them, the first stays.
        """
        height, width = (-(-length // self.mask_stride) for length in frame.resized)
        heat, reach = heat[:height, :width], self.reach_of_centre
        hottest = F.max_pool2d(heat[None], 2 * reach + 1, stride=1, padding=reach)[0] == heat
        cell = (hottest & (heat > (self.threshold if threshold is None else threshold))).nonzero()
        value = heat[cell[:, 0], cell[:, 1]]
        top = best(value, 4 * self.centres)
        place = cell[top].float()
        kept = top[survivors(torch.cdist(place, place, p=torch.inf) <= reach)][: self.centres]
        return Centres(cell[kept].float(), value[kept])

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What is found in the true semantic map, around the true centres, or around the N hottest cells of N."""
        if oracle == "semantic map":
            return super().given(raw, batch, oracle)
        centres = []
        images = zip(raw.heat.float(), self.true_maps(batch).cells, batch.targets, batch.frames, strict=True)
        for heat, cells, target, frame in images:
            if oracle == "centres":
                cell = self.true_centres(cells, len(target))
                cell = cell[~cell.isnan().any(dim=1)]
                centres.append(Centres(cell, torch.ones_like(cell[:, 0])))
            else:
                hottest = self.peaks(heat[0], frame, threshold=-torch.inf)
                centres.append(Centres(*(part[: len(target)] for part in hottest)))
        maps = self.maps(raw, batch.frames)
        return self.drawn(raw, maps, self._joining(raw.offset.float(), maps, centres))

    def ceiling(self, batch: Batch) -> list[Instances]:
        """What the true heat and offsets make of the true semantic map: of centres that are neighbours one is left."""
        maps = self.true_semantic_maps(batch)
        images = zip(self.true_maps(batch).cells, batch.targets, strict=True)
        truth = [self.truth(cells, len(target)) for cells, target in images]
        centres = [self.peaks(image.heat, known.frame) for image, known in zip(truth, maps, strict=True)]
        return self.redrawn(maps, self._joining([image.offset for image in truth], maps, centres))


def _head(channels: int, width: int, outputs: int) -> nn.Sequential:
    """A 5 × 5 convolution and the one that predicts (section 3.1, where it is separable; detectron2's default is this).

    Separable, it cost the small variant five points of AP on drawn shapes and a seventh less time to train.
    """
    return nn.Sequential(ConvNormReLU(channels, width, kernel=5, std=None), predictor(width, outputs, kernel=1))
