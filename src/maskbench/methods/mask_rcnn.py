"""Mask R-CNN: propose boxes, classify and refine each, draw a mask inside it (He et al., ICCV 2017, arXiv 1703.06870).

B images   N objects of an image   R regions   P positive regions   C classes   K mask channels   m cells a mask's side
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.fpn import FPN
from maskbench.nn.masks import mask_losses, mask_probabilities, mask_size
from maskbench.nn.points import PointRefinement, Refine
from maskbench.nn.roi import BoxHead, MaskHead
from maskbench.nn.rpn import DETECTRON2_MATCHER, MATCHER, RPN, RPNOutput
from maskbench.nn.upsample import TransposedConv, Upsample
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Matcher, Sampler
from maskbench.ops.mask_kinds import MaskKind, PerClassSigmoid
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
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Pyramid and proposals' network; the heads run on what is selected, in `instances`."""

    features: list[Tensor]
    rpn: RPNOutput


@dataclass(frozen=True)
class Variant:
    """What implementations of one paper do differently, so that weights of one compute what they computed there.

    Args:
        anchors: which anchor learns which object.
        proposals: which proposal learns which object.
        rounded: whether anchors' sides are whole pixels.
        rpn_beta: below it the RPN's box loss is quadratic (0: L1).
        box_beta: likewise the box head's.
        soft: whether the mask head learns the share of a cell that is set, or whether half of it is.
        whole_pixels: whether masks are pasted into boxes cut to whole pixels.
        smallest: pixels that a detection has at least in width and height.
    """

    anchors: Matcher
    proposals: Matcher
    rounded: bool = False
    rpn_beta: float = 0.0
    box_beta: float = 0.0
    soft: bool = False
    whole_pixels: bool = False
    smallest: float = 0.0


VARIANTS = {
    "mmdet": Variant(anchors=MATCHER, proposals=Matcher(0.5, 0.5, low_quality=0.5)),
    "detectron2": Variant(anchors=DETECTRON2_MATCHER, proposals=Matcher(0.5, 0.5)),
    "torchvision": Variant(
        anchors=DETECTRON2_MATCHER,
        proposals=Matcher(0.5, 0.5),
        rounded=True,
        rpn_beta=1 / 9,
        box_beta=1 / 9,
        soft=True,
        whole_pixels=True,
        smallest=0.01,
    ),
}
"""torchvision also pools otherwise and keeps more proposals: `method=mask_rcnn_torchvision`."""


class MaskRCNN(Segmenter):
    """Mask R-CNN on a feature pyramid.

    The defaults are those of MMDetection's mask-rcnn_r50_fpn_1x (schedule and augmentation aside), which differ from
    the paper's in the L1 losses and in proposals matched to a box they overlap most.

    Args:
        variant: whose details, one of `VARIANTS`.
        width: channels of the pyramid and of the RPN.
        anchor_scales: sides of the anchors in strides of their level.
        anchor_ratios: their heights over their widths; every scale comes in each.
        pre_nms: the best anchors of a level that enter the proposals' NMS, in training and in prediction.
        post_nms: how many an image keeps after it, likewise.
        regions: how many an image trains on, and the share of positives among them.
        rpn_depth: convolutions of the RPN before the two that predict.
        box_width: of the box head's fully connected layers: two, or one where convolutions come before.
        box_convs: convolutions before them.
        mask_width: of the mask head, which has `mask_depth` convolutions.
        mask_depth: see there.
        norm: whether the pyramid and the convolutions of box and mask head have batch normalisation (the RPN has none).
        nms: overlap at which the lower-scored box of a class goes.
        pool: how the features of a region become cells.
        mask: what the channels of the mask head stand for.
        upsample: how the mask head doubles its size.
        refine: PointRend's refinement of the masks (None: they stay as they are).
    """

    paradigm = "two-stage"
    default_point = OperatingPoint(score_threshold=0.05, candidates=None, max_instances=100)
    oracles = ("boxes",)
    delta_weights: box_ops.DeltaWeights = (10.0, 5.0)

    def __init__(
        self,
        *,
        variant: str = "mmdet",
        width: int = 256,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        regions: tuple[int, float] = (512, 0.25),
        rpn_depth: int = 1,
        box_width: int = 1024,
        box_convs: int = 0,
        mask_width: int = 256,
        mask_depth: int = 4,
        norm: bool = False,
        nms: float = 0.5,
        pool: RegionPool = RoIAlign(),
        mask: MaskKind = PerClassSigmoid(),
        upsample: Upsample = TransposedConv,
        refine: Refine | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if variant not in VARIANTS:
            raise ConfigError(f"variant={variant!r} of Mask R-CNN: expected one of {', '.join(VARIANTS)}")
        self.variant = VARIANTS[variant]
        outputs = mask.channels(len(self.classes))
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width, norm=norm)
        self.rpn = RPN(
            width,
            self.fpn.strides,
            depth=rpn_depth,
            scales=anchor_scales,
            ratios=anchor_ratios,
            pre_nms=pre_nms,
            post_nms=post_nms,
            matcher=self.variant.anchors,
            beta=self.variant.rpn_beta,
            rounded=self.variant.rounded,
        )
        self.box_head = BoxHead(width, len(self.classes), width=box_width, convs=box_convs, norm=norm)
        self.mask_head = MaskHead(width, outputs, width=mask_width, depth=mask_depth, norm=norm, upsample=upsample)
        self.refinement: PointRefinement | None = refine(width, self.fpn.strides[0], outputs) if refine else None
        self.sampler = Sampler(*regions)
        self.pool, self.mask_kind, self.nms = PyramidPool(self.fpn.strides, pool), mask, nms

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        features = self.fpn(self.backbone(images))
        return Raw(features, self.rpn(features))

    # Targets ---------------------------------------------------------------------------------------------------------

    def sample(self, proposals: Sequence[Float[Tensor, "_r 4"]], targets: Sequence[Instances]) -> Regions:
        """Which proposals to train on; the true boxes are among them."""
        return sample(proposals, targets, self.variant.proposals, self.sampler, len(self.classes))

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=True)
        return {
            **self.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames),
            **self.roi_losses(raw.features, proposals, batch.targets),
        }

    def roi_losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Class and box loss over the sampled regions, mask loss over the positives (section 3)."""
        regions = self.sample(proposals, targets)
        logits, deltas = self.box_head(self.pool(features, regions.boxes, self.box_head.pool))
        return {
            **box_losses(logits, deltas, regions, targets, self.delta_weights, self.variant.box_beta),
            **self.mask_losses(features, regions.positives(), targets),
        }

    def mask_losses(
        self, features: Sequence[Tensor], positives: Regions, targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Mean over positives and cells, of the true class's mask alone if each class has one (section 3.1)."""
        logits = self.mask_head(self.pool(features, positives.boxes, self.mask_head.pool)).float()
        return mask_losses(
            logits, positives, targets, self.mask_kind, self.refinement, features[0], soft=self.variant.soft
        )

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        proposals = self.rpn.boxes(raw.rpn, frames, training=False)
        return self.detect(raw.features, proposals, frames)

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], frames: Sequence[Frame]
    ) -> list[Instances]:
        """Proposals in network pixels → instances in photo pixels."""
        found = self.detections(features, proposals, frames)
        masks = self.masks(features, found)
        return in_photo(masks, found, frames, whole_pixels=self.variant.whole_pixels)

    def detections(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], frames: Sequence[Frame]
    ) -> list[Detected]:
        """What the box head makes of proposals, after NMS: the boxes that get a mask."""
        logits, deltas = self.box_head(self.pool(features, proposals, self.box_head.pool))
        boxes = box_ops.decode(torch.cat(list(proposals)), deltas.float(), self.delta_weights)
        counts, probabilities = [len(image) for image in proposals], logits.float().softmax(dim=1)
        return detect(boxes, probabilities, counts, frames, self.point, self.nms, self.variant.smallest)

    def masks(self, features: Sequence[Tensor], found: Sequence[Detected]) -> Float[Tensor, "R m m"]:
        """Probabilities inside the box of everything that was found."""
        boxes = [image.boxes for image in found]
        logits = self.mask_head(self.pool(features, boxes, self.mask_head.pool)).float()
        return mask_probabilities(logits, found, self.mask_kind, self.refinement, features[0])

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The masks of the true classes inside the true boxes."""
        masks = self.masks(raw.features, true_boxes(batch.targets))
        return in_true_boxes(masks, batch.targets, batch.frames, whole_pixels=self.variant.whole_pixels)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=False)
        return proposal_recall(proposals, batch.targets, most=self.rpn.post_nms[1])

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth cropped to its own boxes at the size of a mask, and pasted back."""
        return redrawn(batch, mask_size(self.mask_head.size, self.refinement))
