"""Mask R-CNN: propose boxes, classify and refine each, draw a mask inside it (He et al., ICCV 2017, arXiv 1703.06870).

B images   N objects of an image   R regions   P positive regions   C classes   m cells a side of a mask
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from maskbench.methods.base import Common, Segmenter
from maskbench.nn.blocks import zero_of
from maskbench.nn.fpn import FPN
from maskbench.nn.roi import BoxHead, MaskHead
from maskbench.nn.rpn import RPN, RPNOutput
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Matcher, Sampler
from maskbench.ops.masks import crop_and_resize, paste
from maskbench.ops.roi_pool import pool
from maskbench.ops.suppress import above, best
from maskbench.structures import Batch, Frame, Instances, OperatingPoint


class Raw(NamedTuple):
    """Pyramid and proposals' network; the heads run on what is selected, in `instances`."""

    features: list[Tensor]
    rpn: RPNOutput


class Regions(NamedTuple):
    """The sampled proposals of a batch, image by image, positives first."""

    boxes: list[Float[Tensor, "_r 4"]]
    labels: list[Int64[Tensor, " _r"]]
    matched: list[Int64[Tensor, " _p"]]
    """Row of the target that each positive learns."""


class MaskRCNN(Segmenter):
    """Mask R-CNN on a feature pyramid.

    The defaults are those of MMDetection's mask-rcnn_r50_fpn_1x (schedule and augmentation aside), which differ from
    the paper's in the L1 losses and in proposals matched to a box they overlap most.

    Args:
        width: channels of the pyramid and of the RPN.
        anchor_scales: sides of the anchors in strides of their level.
        pre_nms: the best anchors of a level that enter the proposals' NMS, in training and in prediction.
        post_nms: how many an image keeps after it, likewise.
        regions: how many an image trains on, and the share of positives among them.
        box_width: of the box head's two layers.
        mask_width: of the mask head, which has `mask_depth` convolutions.
        sampling: samples a bin and side in RoIAlign (0: adaptive).
        nms: overlap at which the lower-scored box of a class goes.
    """

    paradigm = "two-stage"
    default_point = OperatingPoint(score_threshold=0.05, candidates=None, max_instances=100)
    delta_weights: box_ops.DeltaWeights = (10.0, 10.0, 5.0, 5.0)

    def __init__(
        self,
        *,
        width: int = 256,
        anchor_scales: Sequence[float] = (8.0,),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        regions: tuple[int, float] = (512, 0.25),
        box_width: int = 1024,
        mask_width: int = 256,
        mask_depth: int = 4,
        sampling: int = 0,
        nms: float = 0.5,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.rpn = RPN(width, self.fpn.strides, scales=anchor_scales, pre_nms=pre_nms, post_nms=post_nms)
        self.box_head = BoxHead(width, len(self.classes), width=box_width)
        self.mask_head = MaskHead(width, len(self.classes), width=mask_width, depth=mask_depth)
        self.matcher = Matcher(0.5, 0.5, low_quality=0.5)
        self.sampler = Sampler(*regions)
        self.sampling, self.nms = sampling, nms

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        features = self.fpn(self.backbone(images))
        return Raw(features, self.rpn(features))

    def pool(self, features: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Float[Tensor, "R D s s"]:
        """The regions' features, each from the level of P2…P5 that fits its size."""
        levels = len(features) - 1
        return pool(features[:levels], self.fpn.strides[:levels], boxes, size, sampling=self.sampling)

    # Targets ---------------------------------------------------------------------------------------------------------

    def sample(self, proposals: Sequence[Float[Tensor, "_r 4"]], targets: Sequence[Instances]) -> Regions:
        """Which proposals to train on; the true boxes are among them."""
        boxes, labels, matched = [], [], []
        for proposed, target in zip(proposals, targets, strict=True):
            candidates = torch.cat([target.boxes, proposed])
            matches = self.matcher(candidates, target.boxes)
            positive, negative = self.sampler(matches)
            background = torch.full_like(negative, len(self.classes))
            boxes.append(candidates[torch.cat([positive, negative])])
            labels.append(torch.cat([target.labels[matches[positive]], background]))
            matched.append(matches[positive])
        return Regions(boxes, labels, matched)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        proposals = [boxes for boxes, _ in self.rpn.proposals(raw.rpn, batch.frames, training=True)]
        return {
            **self.rpn.losses(raw.rpn, batch.targets),
            **self.roi_losses(raw.features, proposals, batch.targets),
        }

    def roi_losses(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Class and box loss over the sampled regions, mask loss over the positives (section 3)."""
        regions = self.sample(proposals, targets)
        return {
            **self.box_losses(features, regions, targets),
            "mask": self.mask_loss(features, regions, targets),
        }

    def box_losses(
        self, features: Sequence[Tensor], regions: Regions, targets: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """Cross-entropy and L1 loss of the class's own box, both divided by the number of regions."""
        logits, deltas = self.box_head(self.pool(features, regions.boxes, self.box_head.pool))
        logits, deltas, labels = logits.float(), deltas.float(), torch.cat(regions.labels)
        positive = (labels < len(self.classes)).nonzero()[:, 0]
        truth = torch.cat([target.boxes[match] for target, match in zip(targets, regions.matched, strict=True)])
        wanted = box_ops.encode(torch.cat(regions.boxes)[positive], truth, self.delta_weights)
        count = max(1, len(labels))
        return {
            "class": F.cross_entropy(logits, labels, reduction="sum") / count,
            "box": (deltas[positive, labels[positive]] - wanted).abs().sum() / count,
        }

    def mask_loss(
        self, features: Sequence[Tensor], regions: Regions, targets: Sequence[Instances]
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy on the true class's mask alone, mean over positives and cells (section 3.1)."""
        boxes = [box[: len(match)] for box, match in zip(regions.boxes, regions.matched, strict=True)]
        labels = torch.cat([label[: len(match)] for label, match in zip(regions.labels, regions.matched, strict=True)])
        logits = self.mask_head(self.pool(features, boxes, self.mask_head.pool)).float()
        if len(labels) == 0:
            return zero_of(logits)
        wanted = torch.cat(
            [
                crop_and_resize(target.masks.dense()[match], box, self.mask_head.size)
                for target, match, box in zip(targets, regions.matched, boxes, strict=True)
            ]
        )
        own = logits[torch.arange(len(labels), device=logits.device), labels]
        return F.binary_cross_entropy_with_logits(own, wanted.float())

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        proposals = [boxes for boxes, _ in self.rpn.proposals(raw.rpn, frames, training=False)]
        return self.detect(raw.features, proposals, frames)

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], frames: Sequence[Frame]
    ) -> list[Instances]:
        """Proposals in network pixels → instances in photo pixels: box head, NMS, then masks of the boxes that stay."""
        logits, deltas = self.box_head(self.pool(features, proposals, self.box_head.pool))
        counts = [len(boxes) for boxes in proposals]
        selected = [
            self._select(*image)
            for image in zip(proposals, logits.float().split(counts), deltas.float().split(counts), frames, strict=True)
        ]
        boxes, labels, scores = (list(column) for column in zip(*selected, strict=True))
        masks = self._masks(features, boxes, labels)
        return [self._in_photo(*image) for image in zip(masks, boxes, labels, scores, frames, strict=True)]

    def _select(
        self, proposals: Float[Tensor, "R 4"], logits: Tensor, deltas: Tensor, frame: Frame
    ) -> tuple[Float[Tensor, "K 4"], Int64[Tensor, " K"], Float[Tensor, " K"]]:
        probabilities = logits.softmax(dim=1)[:, :-1]
        boxes = box_ops.clip(box_ops.decode(proposals, deltas, self.delta_weights), frame.resized)
        row, label = above(probabilities, self.point.score_threshold).unbind(dim=1)
        top = best(probabilities[row, label], self.point.candidates)
        row, label = row[top], label[top]
        boxes, scores = boxes[row, label], probabilities[row, label]
        kept = batched_nms(boxes, scores, label, self.nms)[: self.point.max_instances]
        return boxes[kept], label[kept], scores[kept]

    def _masks(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "_k m m"], ...]:
        logits = self.mask_head(self.pool(features, boxes, self.mask_head.pool)).float()
        label = torch.cat(list(labels))
        own = logits[torch.arange(len(label), device=logits.device), label].sigmoid()
        return own.split([len(rows) for rows in boxes])

    @staticmethod
    def _in_photo(maps: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, frame: Frame) -> Instances:
        boxes = box_ops.to_photo(boxes, frame)
        return Instances(paste(maps, boxes, frame.photo), boxes, labels, scores)

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth cropped to its own boxes at the mask head's size, and pasted back."""
        return [self._redrawn(target, frame) for target, frame in zip(batch.targets, batch.frames, strict=True)]

    def _redrawn(self, target: Instances, frame: Frame) -> Instances:
        masks: Bool[Tensor, "N H W"] = target.masks.dense().to(target.boxes.device)
        maps = crop_and_resize(masks, target.boxes, self.mask_head.size).float()
        return self._in_photo(maps, target.boxes, target.labels, target.scores, frame)
