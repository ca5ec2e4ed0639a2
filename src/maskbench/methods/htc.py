"""Hybrid Task Cascade: boxes and masks refined in turn, masks handed from stage to stage, semantic features fused in.

Chen et al., "Hybrid Task Cascade for Instance Segmentation", CVPR 2019, arXiv 1901.07518.

B images   N objects of an image   R regions   P positive regions   C classes   S semantic classes   T stages
m cells a side of a mask   h w cells at stride 8
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.errors import ConfigError
from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import kaiming
from maskbench.nn.cascade import BoxCascade, average_logits
from maskbench.nn.fpn import FPN
from maskbench.nn.masks import mask_losses, mask_probabilities, mask_size
from maskbench.nn.points import PointRefinement, Refine
from maskbench.nn.roi import MaskHead
from maskbench.nn.rpn import RPN, RPNOutput
from maskbench.nn.upsample import TransposedConv, Upsample
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Sampler
from maskbench.ops.boxes import batch_index
from maskbench.ops.mask_kinds import MaskKind, PerClassSigmoid
from maskbench.ops.masks import label_map, smallest_first
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
from maskbench.phases import phase
from maskbench.structures import UNKNOWN_CLASS, Batch, Frame, Instances, OperatingPoint


class Semantic(NamedTuple):
    """The semantic branch: class logits, and the features that the heads are given."""

    logits: Float[Tensor, "B S h w"]
    features: Float[Tensor, "B D h w"]


class Raw(NamedTuple):
    """Pyramid, semantic branch and proposals' network; the heads run on what is selected, in `instances`."""

    features: list[Tensor]
    semantic: Semantic | None
    rpn: RPNOutput


class SemanticBranch(nn.Module):
    """All levels brought to the size of the second, summed, and four convolutions (section 3.3).

    Args:
        channels: of every level, and of the features.
        classes: S, of the semantic map.
        levels: how many.
        depth: convolutions after the sum.
    """

    place = 1
    """The level whose size all take."""

    def __init__(self, channels: int, classes: int, *, levels: int = 5, depth: int = 4) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(levels))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.embed = nn.Conv2d(channels, channels, 1)
        self.classify = nn.Conv2d(channels, classes, 1)
        kaiming(*self.lateral, *self.convs, self.embed, self.classify)

    def forward(self, levels: Sequence[Float[Tensor, "B D _h _w"]]) -> Semantic:
        size = levels[self.place].shape[-2:]
        resized = [
            level if level.shape[-2:] == size else F.interpolate(level, size, mode="bilinear", align_corners=True)
            for level in levels
        ]
        fused = torch.stack([F.relu(conv(level)) for conv, level in zip(self.lateral, resized, strict=True)]).sum(dim=0)
        for conv in self.convs:
            fused = F.relu(conv(fused))
        return Semantic(self.classify(fused), F.relu(self.embed(fused)))


class HTC(Segmenter):
    """HTC on a feature pyramid.

    The defaults are those of MMDetection's htc_r50_fpn_1x (schedule and augmentation aside). Each of its three ideas
    can be left out, as in table 4 of the paper.

    Args:
        overlaps: from which on a region is positive, stage by stage: one to three stages.
        interleaved: whether a stage's mask head learns on the boxes that its box head has refined; else both learn on
            the same.
        mask_flow: whether a mask head is given what the one before has seen.
        semantic: whether there is a semantic branch, whose features the heads are given.
        semantic_classes: of the maps that the data set has for it (None: it has none, and the branch learns the
            objects' classes and background from the union of the true masks).
        semantic_weight: of its loss.
        mask_stages: whose masks are the result: the "last" one's, as in MMDetection 3, or the mean of "all", as in the
            paper. Refined ones are the last one's.
        width: channels of the pyramid and of the RPN.
        anchor_scales: sides of the anchors in strides of their level.
        anchor_ratios: their heights over their widths; every scale comes in each.
        pre_nms: the best anchors of a level that enter the proposals' NMS, in training and in prediction.
        post_nms: how many an image keeps after it, likewise.
        regions: how many an image trains on, and the share of positives among them.
        box_width: of the box heads' two layers.
        mask_depth: convolutions of a mask head, which keep the pyramid's width, since features are added to them.
        nms: overlap at which the lower-scored box of a class goes.
        pool: how the features of a region become cells.
        mask: what the channels of the mask heads stand for.
        upsample: how the mask heads double their size.
        refine: PointRend's refinement of the masks (None: they stay as they are).
    """

    paradigm = "two-stage"
    default_point = OperatingPoint(score_threshold=0.001, candidates=None, max_instances=100)
    oracles = ("boxes",)
    delta_weights: tuple[box_ops.DeltaWeights, ...] = ((10, 5), (20, 10), (1 / 0.033, 1 / 0.067))
    stage_weights = (1.0, 0.5, 0.25)

    def __init__(
        self,
        *,
        overlaps: Sequence[float] = (0.5, 0.6, 0.7),
        interleaved: bool = True,
        mask_flow: bool = True,
        semantic: bool = True,
        semantic_classes: int | None = None,
        semantic_weight: float = 0.2,
        mask_stages: str = "last",
        width: int = 256,
        anchor_scales: Sequence[float] = (8.0,),
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (2000, 1000),
        regions: tuple[int, float] = (512, 0.25),
        box_width: int = 1024,
        mask_depth: int = 4,
        nms: float = 0.5,
        pool: RegionPool = RoIAlign(),
        mask: MaskKind = PerClassSigmoid(),
        upsample: Upsample = TransposedConv,
        refine: Refine | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        if mask_stages not in ("last", "all"):
            raise ConfigError(f"mask_stages={mask_stages!r} of HTC: expected last or all")
        classes, outputs = len(self.classes), mask.channels(len(self.classes))
        self.interleaved, self.mask_stages = interleaved, mask_stages
        self.semantic_classes, self.semantic_weight = semantic_classes, semantic_weight
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.rpn = RPN(
            width,
            self.fpn.strides,
            scales=anchor_scales,
            ratios=anchor_ratios,
            pre_nms=pre_nms,
            post_nms=post_nms,
            beta=1 / 9,
            inside=True,
        )
        self.cascade = BoxCascade(
            width, classes, overlaps=overlaps, delta_weights=self.delta_weights, width=box_width, low_quality=True
        )
        self.mask_heads = nn.ModuleList(
            MaskHead(width, outputs, width=width, depth=mask_depth, upsample=upsample) for _ in overlaps
        )
        self.flow = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in overlaps[1:]) if mask_flow else None
        kaiming(*(self.flow or ()))
        levels = len(self.fpn.strides)
        maps = classes + 1 if semantic_classes is None else semantic_classes
        self.semantic = SemanticBranch(width, maps, levels=levels) if semantic else None
        self.refinement: PointRefinement | None = refine(width, self.fpn.strides[0], outputs) if refine else None
        self.sampler = Sampler(*regions)
        self.pyramid_pool, self.mask_kind, self.nms = PyramidPool(self.fpn.strides, pool), mask, nms

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        features = self.fpn(self.backbone(images))
        return Raw(features, self.semantic(features) if self.semantic else None, self.rpn(features))

    @phase("heads")
    def pool(
        self, features: Sequence[Tensor], semantic: Semantic | None, boxes: Sequence[Tensor], size: int
    ) -> Float[Tensor, "R D s s"]:
        """The regions' features from the level that fits their size, and those of the semantic branch added to them."""
        pooled = self.pyramid_pool(features, boxes, size)
        if semantic is None:
            return pooled
        stride = self.fpn.strides[SemanticBranch.place]
        cells = self._mask_head(0).pool
        fused = self.pyramid_pool.how(semantic.features.float(), batch_index(boxes), cells, 1 / stride)
        return pooled + F.avg_pool2d(fused, cells // size).to(pooled.dtype)

    @phase("heads")
    def mask_logits(self, stage: int, pooled: Float[Tensor, "P D s s"]) -> Float[Tensor, "P K m m"]:
        """Of a stage's mask head, which is given what the one before has seen of the same regions (section 3.2)."""
        first = stage if self.flow is None else 0
        seen = None
        for step in range(first, stage + 1):
            given = pooled if seen is None or self.flow is None else pooled + F.relu(self.flow[step - 1](seen))
            seen = self._mask_head(step).look(given)
        assert seen is not None
        return self._mask_head(stage).draw(seen).float()

    def _mask_head(self, stage: int) -> MaskHead:
        head = self.mask_heads[stage]
        assert isinstance(head, MaskHead)
        return head

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=True)
        losses = self.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames)
        if raw.semantic is not None:
            losses["semantic"] = self.semantic_loss(raw.semantic.logits, batch)
        return {**losses, **self.roi_losses(raw.features, raw.semantic, proposals, batch.targets, batch.frames)}

    def semantic_loss(self, logits: Float[Tensor, "B S h w"], batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy, the mean over all cells, those that are ignored among them, as in the reference."""
        stride = self.fpn.strides[SemanticBranch.place]
        wanted = self._maps(batch, stride)
        cost = F.cross_entropy(logits.float(), wanted, ignore_index=UNKNOWN_CLASS, reduction="sum")
        return self.semantic_weight * cost / wanted.numel()

    def _maps(self, batch: Batch, stride: int) -> Int64[Tensor, "B h w"]:
        """Every `stride`th pixel of the data set's semantic maps, or of the classes of the true masks on background.

        Raises:
            ConfigError: there are maps and the branch is not made for them, or the other way round.
        """
        if self.semantic_classes is None:
            if batch.semantic is not None:
                raise ConfigError(
                    "the data set has semantic maps, but method.semantic_classes is null: say how many classes they "
                    "have, or leave data.train_semantic out to learn from the union of the masks"
                )
            images = zip(batch.targets, batch.frames, strict=True)
            return torch.stack([self._union(target, frame, stride) for target, frame in images])
        if batch.semantic is None:
            raise ConfigError(
                f"method.semantic_classes={self.semantic_classes}, but the data set has no semantic maps: name them in "
                "data.train_semantic, or leave semantic_classes out to learn from the union of the masks"
            )
        maps = batch.semantic
        highest = int(torch.where(maps == UNKNOWN_CLASS, 0, maps).amax())
        if highest >= self.semantic_classes:
            raise ConfigError(
                f"method.semantic_classes={self.semantic_classes}, but a semantic map has class {highest}: classes "
                f"count from 0, so there are at least {highest + 1}"
            )
        return maps[:, ::stride, ::stride].long()

    def _union(self, target: Instances, frame: Frame, stride: int) -> Int64[Tensor, "h w"]:
        """The class of each pixel, the one after the last for background, unknown where the image is padded."""
        background = target.labels.new_tensor([len(self.classes)])
        masks = target.masks.dense()
        # smallest by the whole masks, and not by what of them the stride hits
        rows = label_map(masks[:, ::stride, ::stride], smallest_first(masks))
        classes = torch.cat([target.labels, background])[rows]
        height, width = frame.resized
        classes[-(-height // stride) :] = UNKNOWN_CLASS
        classes[:, -(-width // stride) :] = UNKNOWN_CLASS
        return classes

    def roi_losses(
        self,
        features: Sequence[Tensor],
        semantic: Semantic | None,
        proposals: Sequence[Tensor],
        targets: Sequence[Instances],
        frames: Sequence[Frame],
    ) -> dict[str, Tensor]:
        """Losses of every stage, `s0_class` for the first one's; a stage learns on the boxes of the one before."""
        losses: dict[str, Tensor] = {}
        boxes = list(proposals)
        for stage, weight in enumerate(self.stage_weights[: len(self.cascade)]):
            regions = self.cascade.sample(stage, boxes, targets, self.sampler)
            logits, deltas = self.cascade(stage, self.pool(features, semantic, regions.boxes, self.cascade.pool))
            found = self.cascade.losses(stage, logits, deltas, regions, targets)
            boxes = without_truth(self.cascade.refine(stage, regions.boxes, deltas, frames), regions)
            if self.interleaved:
                regions = self.cascade.sample(stage, boxes, targets, self.sampler)
            found |= self.mask_losses(stage, features, semantic, regions.positives(), targets)
            losses |= {f"s{stage}_{name}": weight * value for name, value in found.items()}
        return losses

    def mask_losses(
        self,
        stage: int,
        features: Sequence[Tensor],
        semantic: Semantic | None,
        positives: Regions,
        targets: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """Of the mask head of a stage; the last one's masks are refined, if any are."""
        head = self._mask_head(stage)
        logits = self.mask_logits(stage, self.pool(features, semantic, positives.boxes, head.pool))
        refinement = self.refinement if stage == len(self.mask_heads) - 1 else None
        return mask_losses(logits, positives, targets, self.mask_kind, refinement, features[0])

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        proposals = self.rpn.boxes(raw.rpn, frames, training=False)
        return self.detect(raw.features, raw.semantic, proposals, frames)

    def detect(
        self,
        features: Sequence[Tensor],
        semantic: Semantic | None,
        proposals: Sequence[Tensor],
        frames: Sequence[Frame],
    ) -> list[Instances]:
        """Proposals in network pixels → instances in photo pixels."""
        found = self.detections(features, semantic, proposals, frames)
        return in_photo(self.masks(features, semantic, found), found, frames)

    def detections(
        self,
        features: Sequence[Tensor],
        semantic: Semantic | None,
        proposals: Sequence[Tensor],
        frames: Sequence[Frame],
    ) -> list[Detected]:
        """What the cascade makes of proposals, after NMS: the boxes that get a mask."""
        boxes, probabilities = self.cascade.predict(
            lambda boxes: self.pool(features, semantic, boxes, self.cascade.pool), proposals, frames, average_logits
        )
        counts = [len(image) for image in boxes]
        return detect(torch.cat(boxes)[:, None], probabilities, counts, frames, self.point, self.nms)

    def masks(
        self, features: Sequence[Tensor], semantic: Semantic | None, found: Sequence[Detected]
    ) -> Float[Tensor, "R m m"]:
        """Probabilities inside the box of everything that was found."""
        pooled = self.pool(features, semantic, [image.boxes for image in found], self._mask_head(0).pool)
        last = len(self.mask_heads) - 1
        stages = range(last + 1) if self.mask_stages == "all" and self.refinement is None else [last]
        maps = [
            mask_probabilities(self.mask_logits(stage, pooled), found, self.mask_kind, self.refinement, features[0])
            for stage in stages
        ]
        return torch.stack(maps).mean(dim=0)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """The masks of the true classes inside the true boxes."""
        masks = self.masks(raw.features, raw.semantic, true_boxes(batch.targets))
        return in_true_boxes(masks, batch.targets, batch.frames)

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        proposals = self.rpn.boxes(raw.rpn, batch.frames, training=False)
        return proposal_recall(proposals, batch.targets, most=self.rpn.post_nms[1])

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth cropped to its own boxes at the size of a mask, and pasted back."""
        return redrawn(batch, mask_size(self._mask_head(0).size, self.refinement))
