"""PointRend: a coarse mask in each box, refined at the points it is least sure of.

Kirillov, Wu, He & Girshick, "PointRend: Image Segmentation as Rendering", CVPR 2020, arXiv 1912.08193.

B images   N objects of an image   R regions   C classes   K mask channels   m cells a side of a coarse mask
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import kaiming
from maskbench.nn.fpn import FPN
from maskbench.nn.masks import mask_losses, mask_probabilities, mask_size
from maskbench.nn.points import Draw, PointRefinement
from maskbench.nn.roi import BoxHead
from maskbench.nn.rpn import RPN, RPNOutput
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Matcher, Sampler
from maskbench.ops.mask_kinds import MaskKind, PerClassSigmoid
from maskbench.ops.points import grid_points, sample_regions
from maskbench.ops.regions import (
    Detected,
    Regions,
    box_losses,
    detect,
    in_photo,
    in_true_boxes,
    proposal_recall,
    redrawn,
    sample,
    true_boxes,
)
from maskbench.ops.roi_pool import PyramidPool, RegionPool, RoIAlign
from maskbench.phases import phase
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Pyramid and proposals' network; the heads run on what is selected, in `instances`."""

    features: list[Tensor]
    rpn: RPNOutput


class CoarseHead(nn.Module):
    """A small mask from points of the finest level: a convolution that halves, two layers, all cells at once (4.1).

    Args:
        channels: of the level.
        outputs: channels of the mask.
        size: cells a side of the mask; twice as many points a side are looked at.
        width: of the two layers.
    """

    def __init__(self, channels: int, outputs: int, *, size: int = 7, width: int = 1024) -> None:
        super().__init__()
        self.outputs, self.size = outputs, size
        self.halve = nn.Conv2d(channels, channels, 2, stride=2)
        first, second = nn.Linear(channels * size * size, width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
        self.logits = nn.Linear(width, outputs * size * size)
        kaiming(self.halve)
        nn.init.xavier_uniform_(first.weight)
        nn.init.xavier_uniform_(second.weight)
        nn.init.normal_(self.logits.weight, std=0.001)
        for bias in (first.bias, second.bias, self.logits.bias):
            nn.init.zeros_(bias)

    @phase("heads")
    def forward(
        self, feature: Float[Tensor, "B D h w"], boxes: Sequence[Float[Tensor, "_r 4"]], stride: int
    ) -> Float[Tensor, "R {self.outputs} {self.size} {self.size}"]:
        """Mask logits of the boxes of every image, from a level of `stride` pixels a cell."""
        points = grid_points(sum(map(len, boxes)), 2 * self.size, feature.device)
        seen = sample_regions(feature, boxes, points, stride).unflatten(2, (2 * self.size, 2 * self.size))
        return self.logits(self.hidden(F.relu(self.halve(seen)))).view(-1, self.outputs, self.size, self.size)


class PointRend(Segmenter):
    """Mask R-CNN with PointRend's mask branch.

    The defaults are those of MMDetection's point-rend_r50_fpn_1x (schedule and augmentation aside); its boxes are
    trained as those of Mask R-CNN.

    Args:
        width: channels of the pyramid and of the RPN.
        anchor_scales: sides of the anchors in strides of their level.
        anchor_ratios: their heights over their widths; every scale comes in each.
        pre_nms: the best anchors of a level that enter the proposals' NMS, in training and in prediction.
        post_nms: how many an image keeps after it, likewise.
        regions: how many an image trains on, and the share of positives among them.
        box_width: of the box head's two layers.
        coarse_width: of the coarse head's two layers.
        coarse_size: cells a side of the coarse mask.
        point_width: of the point head's layers, of which there are `point_depth`.
        point_depth: see there.
        points: how many an instance is trained on.
        subdivisions: how often the coarse mask's side is doubled in prediction.
        budget: points that are asked for in each of them.
        nms: overlap at which the lower-scored box of a class goes.
        pool: how the features of a region become cells, for the box head.
        mask: what the channels of the masks stand for.
    """

    paradigm = "two-stage"
    default_point = OperatingPoint(score_threshold=0.05, candidates=None, max_instances=100)
    oracles = ("boxes",)
    delta_weights: box_ops.DeltaWeights = (10.0, 5.0)

    def __init__(
        self,
        *,
        width: int = 256,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        regions: tuple[int, float] = (512, 0.25),
        box_width: int = 1024,
        coarse_width: int = 1024,
        coarse_size: int = 7,
        point_width: int = 256,
        point_depth: int = 3,
        points: int = 196,
        subdivisions: int = 5,
        budget: int = 784,
        nms: float = 0.5,
        pool: RegionPool = RoIAlign(),
        mask: MaskKind = PerClassSigmoid(),
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        outputs = mask.channels(len(self.classes))
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.rpn = RPN(
            width,
            self.fpn.strides,
            scales=anchor_scales,
            ratios=anchor_ratios,
            pre_nms=pre_nms,
            post_nms=post_nms,
        )
        self.box_head = BoxHead(width, len(self.classes), width=box_width)
        self.coarse_head = CoarseHead(width, outputs, size=coarse_size, width=coarse_width)
        self.refinement = PointRefinement(
            width,
            self.fpn.strides[0],
            outputs,
            width=point_width,
            depth=point_depth,
            points=points,
            subdivisions=subdivisions,
            budget=budget,
        )
        self.matcher = Matcher(0.5, 0.5, low_quality=0.5)
        self.sampler = Sampler(*regions)
        self.pool, self.mask_kind, self.nms = PyramidPool(self.fpn.strides, pool), mask, nms

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        features = self.fpn(self.backbone(images))
        return Raw(features, self.rpn(features))

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=True)
        return {
            **self.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames),
            **self.roi_losses(raw.features, proposals, batch.targets),
        }

    def roi_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Instances],
        draw: Draw | None = None,
    ) -> dict[str, Tensor]:
        """Class and box loss over the sampled regions, coarse mask and point loss over the positives."""
        regions = sample(proposals, targets, self.matcher, self.sampler, len(self.classes))
        logits, deltas = self.box_head(self.pool(features, regions.boxes, self.box_head.pool))
        return {
            **box_losses(logits, deltas, regions, targets, self.delta_weights),
            **self.mask_losses(features, regions.positives(), targets, draw),
        }

    def mask_losses(
        self, features: Sequence[Tensor], positives: Regions, targets: Sequence[Instances], draw: Draw | None = None
    ) -> dict[str, Tensor]:
        """Mean over positives and cells, and over positives and points; `draw` gives the random points."""
        coarse = self.coarse(features, positives.boxes)
        return mask_losses(coarse, positives, targets, self.mask_kind, self.refinement, features[0], draw=draw)

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        proposals = self.rpn.boxes(raw.rpn, frames, training=False)
        return self.detect(raw.features, proposals, frames)

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], frames: Sequence[Frame]
    ) -> list[Instances]:
        """Proposals in network pixels → instances in photo pixels."""
        found = self.detections(features, proposals, frames)
        return in_photo(self.masks(features, found), found, frames)

    def detections(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], frames: Sequence[Frame]
    ) -> list[Detected]:
        """What the box head makes of proposals, after NMS: the boxes that get a mask."""
        logits, deltas = self.box_head(self.pool(features, proposals, self.box_head.pool))
        boxes = box_ops.decode(torch.cat(list(proposals)), deltas.float(), self.delta_weights)
        counts = [len(image) for image in proposals]
        return detect(boxes, logits.float().softmax(dim=1), counts, frames, self.point, self.nms)

    def masks(self, features: Sequence[Tensor], found: Sequence[Detected]) -> Float[Tensor, "R m m"]:
        """Probabilities inside the box of everything that was found."""
        coarse = self.coarse(features, [image.boxes for image in found])
        return mask_probabilities(coarse, found, self.mask_kind, self.refinement, features[0])

    def coarse(self, features: Sequence[Tensor], boxes: Sequence[Float[Tensor, "_r 4"]]) -> Float[Tensor, "R K m m"]:
        """Logits of the coarse masks inside boxes, which are refined."""
        return self.coarse_head(features[0], boxes, self.fpn.strides[0]).float()

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The masks of the true classes inside the true boxes."""
        masks = self.masks(raw.features, true_boxes(batch.targets))
        return in_true_boxes(masks, batch.targets, batch.frames)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=False)
        return proposal_recall(proposals, batch.targets, most=self.rpn.post_nms[1])

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth cropped to its own boxes at the size of a refined mask, and pasted back."""
        return redrawn(batch, mask_size(self.coarse_head.size, self.refinement))
