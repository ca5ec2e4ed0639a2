"""Cascade Mask R-CNN: boxes refined stage by stage, each stage trained at a higher overlap.

Cai & Vasconcelos, "Cascade R-CNN: High Quality Object Detection and Instance Segmentation", TPAMI 2019,
arXiv 1906.09756 (CVPR 2018, arXiv 1712.00726).

B images   N objects of an image   R regions   P positive regions   C classes   T stages   m cells a side of a mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.cascade import Average, BoxCascade, average_logits, average_probabilities
from maskbench.nn.fpn import FPN
from maskbench.nn.masks import mask_losses, mask_probabilities, mask_size
from maskbench.nn.points import PointRefinement, Refine
from maskbench.nn.roi import MaskHead
from maskbench.nn.rpn import DETECTRON2_MATCHER, MATCHER, RPN, RPNOutput
from maskbench.nn.upsample import TransposedConv, Upsample
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import EVERY, Matcher, Sampler
from maskbench.ops.mask_kinds import MaskKind, PerClassSigmoid
from maskbench.ops.regions import (
    Detected,
    Regions,
    detect,
    in_photo,
    in_true_boxes,
    proposal_recall,
    redrawn,
    true_boxes,
    without_truth,
)
from maskbench.ops.roi_pool import PyramidPool, RegionPool, RoIAlign
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Pyramid and proposals' network; the heads run on what is selected, in `instances`."""

    features: list[Tensor]
    rpn: RPNOutput


@dataclass(frozen=True)
class Variant:
    """What two implementations of one name do differently.

    Args:
        resample: whether every stage draws its regions anew, the true boxes among them; else those of the first stage
            are moved and matched again.
        mask_heads: whether every stage has a mask head, whose masks are averaged; else there is one, trained on the
            first stage's regions.
        average: how the stages' class logits become one probability.
        loss_weights: of the stages' losses.
        share_gradient: whether a box head hands on its share alone of the gradient into the features, 1 / stages.
        delta_weights: of the boxes, stage by stage.
        anchors: which anchor learns which object.
        box_beta: below it the box heads' loss is quadratic (0: L1).
        rpn_beta: likewise of the RPN.
        inside: whether anchors that cross the image's edge are left out of the RPN's loss.
    """

    resample: bool
    mask_heads: bool
    average: Average
    loss_weights: tuple[float, ...]
    share_gradient: bool
    delta_weights: tuple[box_ops.DeltaWeights, ...]
    anchors: Matcher
    box_beta: float
    rpn_beta: float
    inside: bool


VARIANTS = {
    "mmdet": Variant(
        resample=True,
        mask_heads=True,
        average=average_logits,
        loss_weights=(1.0, 0.5, 0.25, 0.125),
        share_gradient=False,
        # the third stage's are the inverse of its rounded standard deviations
        delta_weights=((10, 5), (20, 10), (1 / 0.033, 1 / 0.067), (40, 20)),
        anchors=MATCHER,
        box_beta=1.0,
        rpn_beta=1 / 9,
        inside=True,
    ),
    "detectron2": Variant(
        resample=False,
        mask_heads=False,
        average=average_probabilities,
        loss_weights=(1.0, 1.0, 1.0, 1.0),
        share_gradient=True,
        delta_weights=((10, 5), (20, 10), (30, 15), (40, 20)),
        anchors=DETECTRON2_MATCHER,
        box_beta=0.0,
        rpn_beta=0.0,
        inside=False,
    ),
}
"""MMDetection's and detectron2's cascade are two different models. The paper's fourth stage is continued from three."""


class CascadeMaskRCNN(Segmenter):
    """Cascade Mask R-CNN on a feature pyramid.

    The defaults are those of MMDetection's cascade-mask-rcnn_r50_fpn_1x (schedule and augmentation aside).

    Args:
        variant: "mmdet" or "detectron2", see `VARIANTS`.
        overlaps: from which on a region is positive, stage by stage: one to four stages.
        width: channels of the pyramid and of the RPN.
        anchor_scales: sides of the anchors in strides of their level.
        anchor_ratios: their heights over their widths; every scale comes in each.
        pre_nms: the best anchors of a level that enter the proposals' NMS, in training and in prediction.
        post_nms: how many an image keeps after it, likewise.
        regions: how many an image trains on, and the share of positives among them.
        box_width: of the box heads' two layers.
        mask_width: of the mask heads, which have `mask_depth` convolutions.
        mask_depth: see there.
        nms: overlap at which the lower-scored box of a class goes.
        pool: how the features of a region become cells.
        mask: what the channels of the mask heads stand for.
        upsample: how the mask heads double their size.
        refine: PointRend's refinement of the masks (None: they stay as they are).
    """

    paradigm = "two-stage"
    default_point = OperatingPoint(score_threshold=0.05, candidates=None, max_instances=100)
    oracles = ("boxes",)

    def __init__(
        self,
        *,
        variant: str = "mmdet",
        overlaps: Sequence[float] = (0.5, 0.6, 0.7),
        width: int = 256,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (2000, 1000),
        regions: tuple[int, float] = (512, 0.25),
        box_width: int = 1024,
        mask_width: int = 256,
        mask_depth: int = 4,
        nms: float = 0.5,
        pool: RegionPool = RoIAlign(),
        mask: MaskKind = PerClassSigmoid(),
        upsample: Upsample = TransposedConv,
        refine: Refine | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if variant not in VARIANTS:
            raise ConfigError(f"variant={variant!r} of Cascade Mask R-CNN: expected {' or '.join(VARIANTS)}")
        self.variant = VARIANTS[variant]
        classes, outputs = len(self.classes), mask.channels(len(self.classes))
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.rpn = RPN(
            width,
            self.fpn.strides,
            scales=anchor_scales,
            ratios=anchor_ratios,
            pre_nms=pre_nms,
            post_nms=post_nms,
            matcher=self.variant.anchors,
            beta=self.variant.rpn_beta,
            inside=self.variant.inside,
        )
        self.cascade = BoxCascade(
            width,
            classes,
            overlaps=overlaps,
            delta_weights=self.variant.delta_weights,
            width=box_width,
            beta=self.variant.box_beta,
        )
        self.mask_heads = nn.ModuleList(
            MaskHead(width, outputs, width=mask_width, depth=mask_depth, upsample=upsample)
            for _ in range(len(self.cascade) if self.variant.mask_heads else 1)
        )
        self.refinement: PointRefinement | None = refine(width, self.fpn.strides[0], outputs) if refine else None
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
            **self.roi_losses(raw.features, proposals, batch.targets, batch.frames),
        }

    def roi_losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Instances],
        frames: Sequence[Frame],
    ) -> dict[str, Tensor]:
        """Losses of every stage, `s0_class` for the first one's; a stage learns on the boxes of the one before."""
        losses: dict[str, Tensor] = {}
        boxes = list(proposals)
        for stage, weight in enumerate(self.variant.loss_weights[: len(self.cascade)]):
            regions = self.sample(stage, boxes, targets)
            pooled = self._scaled(self.pool(features, regions.boxes, self.cascade.pool))
            logits, deltas = self.cascade(stage, pooled)
            found = self.cascade.losses(stage, logits, deltas, regions, targets)
            if stage < len(self.mask_heads):
                found |= self.mask_losses(stage, features, regions.positives(), targets)
            losses |= {f"s{stage}_{name}": weight * value for name, value in found.items()}
            boxes = self._next(stage, regions, deltas, frames)
        return losses

    def sample(self, stage: int, boxes: Sequence[Tensor], targets: Sequence[Instances]) -> Regions:
        """The regions of a stage: drawn, the true boxes among them, or all that come, matched again."""
        if stage == 0 or self.variant.resample:
            return self.cascade.sample(stage, boxes, targets, self.sampler)
        return self.cascade.sample(stage, boxes, targets, EVERY, with_truth=False)

    def _next(
        self, stage: int, regions: Regions, deltas: Float[Tensor, "R 1 4"], frames: Sequence[Frame]
    ) -> list[Tensor]:
        """What the next stage is given: this one's boxes where they moved to."""
        boxes = self.cascade.refine(stage, regions.boxes, deltas, frames)
        if self.variant.resample:
            return without_truth(boxes, regions)  # which is laid among them again
        return [box[box_ops.not_empty(box)] for box in boxes]

    def _scaled(self, pooled: Tensor) -> Tensor:
        """The same features, of whose gradient a share goes back."""
        if not self.variant.share_gradient:
            return pooled
        share = 1 / len(self.cascade)
        return share * pooled + (1 - share) * pooled.detach()

    def mask_losses(
        self, stage: int, features: Sequence[Tensor], positives: Regions, targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Of the mask head of a stage; the last one's masks are refined, if any are."""
        head = self._mask_head(stage)
        logits = head(self.pool(features, positives.boxes, head.pool)).float()
        refinement = self.refinement if stage == len(self.mask_heads) - 1 else None
        return mask_losses(logits, positives, targets, self.mask_kind, refinement, features[0])

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
        """What the cascade makes of proposals, after NMS: the boxes that get a mask."""
        boxes, probabilities = self.cascade.predict(
            lambda boxes: self.pool(features, boxes, self.cascade.pool), proposals, frames, self.variant.average
        )
        counts = [len(image) for image in boxes]
        return detect(torch.cat(boxes)[:, None], probabilities, counts, frames, self.point, self.nms)

    def masks(self, features: Sequence[Tensor], found: Sequence[Detected]) -> Float[Tensor, "R m m"]:
        """Probabilities inside each box that was found: the mean of the mask heads', or the last one's refined."""
        pooled = self.pool(features, [image.boxes for image in found], self._mask_head(0).pool)
        heads = self.mask_heads if self.refinement is None else self.mask_heads[-1:]
        maps = [
            mask_probabilities(head(pooled).float(), found, self.mask_kind, self.refinement, features[0])
            for head in heads
        ]
        return torch.stack(maps).mean(dim=0)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The masks of the true classes inside the true boxes."""
        masks = self.masks(raw.features, true_boxes(batch.targets))
        return in_true_boxes(masks, batch.targets, batch.frames)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=False)
        return proposal_recall(proposals, batch.targets, most=self.rpn.post_nms[1])

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth cropped to its own boxes at the size of a mask, and pasted back."""
        return redrawn(batch, mask_size(self._mask_head(0).size, self.refinement))

    def _mask_head(self, stage: int) -> MaskHead:
        head = self.mask_heads[stage]
        assert isinstance(head, MaskHead)
        return head
