"""Top-down and bottom-up joined: a detection brings an embedding and a margin, and the pixels within are its mask.

Ying et al., "EmbedMask: Embedding Coupling for One-Stage Instance Segmentation", 2019, arXiv 1912.01954, on the
detector of Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019, arXiv 1904.01355.

B images   N objects of an image   C classes   E embedding dimensions   A locations   P positive ones   K instances
h w cells of the finest map
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms, generalized_box_iou_loss

from maskbench.methods.base import Common, Oracle, Segmenter
from maskbench.nn.blocks import predictor, tower, zero_of
from maskbench.nn.fpn import FPN
from maskbench.nn.semantic import SemanticFPN
from maskbench.ops import boxes as box_ops
from maskbench.ops.grid import flat
from maskbench.ops.grouping import position
from maskbench.ops.locations import Locations, centredness
from maskbench.ops.losses import focal, lovasz_hinge
from maskbench.ops.masks import instances_of, resampled, shrink, to_photo
from maskbench.ops.suppress import Candidates, first_of_each
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

LARGEST = math.log(1000)
"""Of what a side is the exponential, so that none is infinite."""


class Raw(NamedTuple):
    """What every location says of its object, and the embedding of every cell."""

    locations: Locations
    logits: Float[Tensor, "B A C"]
    sides: Float[Tensor, "B A 4"]
    """Distances to the sides of the box, in strides."""
    centred: Float[Tensor, "B A"]
    """Logits of how near its middle the location lies."""
    embedding: Float[Tensor, "B A E"]
    sharpness: Float[Tensor, "B A"]
    """The logarithm of 1 / 2σ²."""
    pixels: Float[Tensor, "B E h w"]


class Detections(NamedTuple):
    """Locations of an image that speak for an object, scores descending; boxes in network pixels."""

    cells: Int64[Tensor, " K"]
    boxes: Float[Tensor, "K 4"]
    labels: Int64[Tensor, " K"]
    scores: Float[Tensor, " K"]


class Hybrid(Segmenter):
    """A dense detector and a pixel embedding that its detections gather.

    Other than in the paper, an object's mean is that of all locations which learn it, and these are drawn together by
    their mean squared distance, that of margins in the logarithm; the pixels' map is a decoder's.

    Args:
        width: channels of the pyramid.
        finest: the first level of the pyramid on which is detected (0 is P2; FCOS begins with P3).
        ranges: pixels from and to which the farthest side of a box lies, by level.
        radius: strides from a box's middle in which locations learn it.
        head_width: channels of the detector's two towers, of `head_depth` convolutions each.
        head_depth: see there.
        decoder_width: of the pixels' decoder.
        dimensions: of the embedding.
        margin: within which of an embedding pixels are its object's at first.
        unit: pixels that are one in the embedding's first two dimensions, to which the place is added: objects that
            look alike lie apart.
        box_margin: share of a box's sides that is looked at beyond it, in training.
        weights: of class, box, centredness, mask and coupling loss.
        nms: overlap at which the lower-scored box of a class goes.
    """

    paradigm = "hybrid"
    default_point = OperatingPoint(score_threshold=0.05, candidates=1000, max_instances=100)
    oracles = ("cells",)

    def __init__(
        self,
        *,
        width: int = 256,
        finest: int = 1,
        ranges: Sequence[tuple[float, float]] = ((0, 64), (64, 128), (128, 256), (256, 1e8)),
        radius: float = 1.5,
        head_width: int = 256,
        head_depth: int = 4,
        decoder_width: int = 128,
        dimensions: int = 32,
        margin: float = 2.0,
        unit: float = 100.0,
        box_margin: float = 0.1,
        weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 0.5, 0.1),
        nms: float = 0.6,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.fpn = FPN(self.backbone.channels, self.backbone.strides, width)
        self.mask_stride = self.fpn.strides[0]
        self.finest, self.strides = finest, self.fpn.strides[finest:]
        self.ranges, self.radius, self.box_margin = tuple((low, high) for low, high in ranges), radius, box_margin
        self.weights, self.nms, self.unit = weights, nms, unit
        self.class_tower, self.box_tower = (tower(width, head_width, head_depth) for _ in range(2))
        self.classify = predictor(head_width, len(self.classes), prior=0.01)
        self.box, self.centred = predictor(head_width, 4), predictor(head_width, 1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        self.embed, self.sharpen = predictor(head_width, dimensions), predictor(head_width, 1)
        self.pixel_decoder = SemanticFPN(width, len(self.backbone.strides), decoder_width, decoder_width)
        self.pixel_embed = predictor(decoder_width, dimensions, kernel=1)
        # embeddings that begin near each other and within a margin: of a Gaussian far away nothing can be learnt
        assert self.sharpen.bias is not None
        nn.init.constant_(self.sharpen.bias, math.log(math.log(2) / margin**2))

    # Network ---------------------------------------------------------------------------------------------------------

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Raw:
        levels = self.fpn(self.backbone(images))
        detecting = levels[self.finest :]
        said: list[tuple[Tensor, ...]] = []
        for level, scale in zip(detecting, self.scales, strict=True):
            classes, boxes = self.class_tower(level), self.box_tower(level)
            sides = (scale * self.box(boxes)).clamp(max=LARGEST).exp()
            said.append((self.classify(classes), sides, self.centred(boxes), self.embed(boxes), self.sharpen(boxes)))
        logits, sides, centred, embedding, sharpness = (flat(maps) for maps in zip(*said, strict=True))
        locations = Locations.of(detecting, self.strides)
        embedding = torch.cat([embedding[..., :2] + locations.point / self.unit, embedding[..., 2:]], dim=2)
        pixels = self.pixel_embed(self.pixel_decoder(levels))
        place = self.mask_stride * (position(pixels.shape[2:], pixels.device) + 0.5).flip(2).permute(2, 0, 1)
        pixels = torch.cat([pixels[:, :2] + place / self.unit, pixels[:, 2:]], dim=1)
        return Raw(locations, logits, sides, centred[..., 0], embedding, sharpness[..., 0], pixels)

    # Loss ------------------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raw = self(self.prepare(batch))
        owners = torch.stack([raw.locations.owners(t.boxes, self.ranges, self.radius) for t in batch.targets])
        positives = (owners >= 0).sum().clamp(min=1)
        images = [
            self._image(raw, row, owner, target)
            for row, (owner, target) in enumerate(zip(owners, batch.targets, strict=True))
        ]
        labels, boxes, centred, masks, coupling = zip(*images, strict=True)
        middling = torch.cat([near for _, near in boxes]).sum().clamp(min=1e-6)
        classes, box, centre, mask, couple = self.weights
        return {
            "class": classes * focal(raw.logits.float().flatten(0, 1), torch.cat(labels)) / positives,
            "box": box * torch.stack([loss for loss, _ in boxes]).sum() / middling + zero_of(raw.sides),
            "centred": centre * torch.stack(centred).sum() / positives,
            "mask": mask * torch.stack(masks).mean(),
            "coupling": couple * torch.stack(coupling).mean(),
        }

    def _image(
        self, raw: Raw, row: int, owner: Int64[Tensor, " A"], target: Instances
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """What one image adds: labels of its locations, box loss and its weights, and the three losses beside."""
        learns = owner >= 0
        own = owner[learns]
        labels = torch.cat([target.labels, target.labels.new_tensor([len(self.classes)])])[owner]
        found = raw.locations.boxes(raw.sides[row].float())[learns]
        wanted = target.boxes[own]
        near = centredness(raw.locations.chosen(learns).sides(wanted))
        box = (near * generalized_box_iou_loss(found, wanted)).sum()
        centred = F.binary_cross_entropy_with_logits(raw.centred[row, learns].float(), near, reduction="sum")
        embedding, sharpness = raw.embedding[row, learns].float(), raw.sharpness[row, learns].float()
        mask, coupling = self._mask_losses(embedding, sharpness, own, raw.pixels[row].float(), target)
        return labels, (box, near), centred + zero_of(raw.centred[row]), mask, coupling

    def _mask_losses(
        self,
        embedding: Float[Tensor, "P E"],
        sharpness: Float[Tensor, " P"],
        own: Int64[Tensor, " P"],
        pixels: Float[Tensor, "E h w"],
        target: Instances,
    ) -> tuple[Tensor, Tensor]:
        """The IoU of what each object's mean embedding gathers in and around its box; how alike its locations are."""
        objects, member = own.unique(return_inverse=True)
        nothing = zero_of(embedding, sharpness, pixels)
        if not len(objects):
            return nothing, nothing
        said = torch.cat([embedding, sharpness[:, None]], dim=1)
        total = said.new_zeros(len(objects), said.shape[1]).index_add(0, member, said)
        means = total / torch.bincount(member)[:, None]
        truth = shrink(target.masks.dense(), self.mask_stride)[objects]
        around = _grown(target.boxes[objects], self.box_margin)
        seen = truth | inside(around, truth.shape[1:], self.mask_stride)
        instance, row, column = seen.nonzero(as_tuple=True)
        squared = ((pixels.permute(1, 2, 0)[row, column] - means[instance, :-1]) ** 2).sum(dim=1)
        likely = (-squared * means[instance, -1].exp()).exp()
        hinge = lovasz_hinge(2 * likely - 1, truth[seen], instance, len(objects))
        apart = ((said - means.detach()[member]) ** 2).sum(dim=1)
        return hinge.mean() + nothing, apart.mean() + nothing

    # Prediction ------------------------------------------------------------------------------------------------------

    def instances(self, raw: Raw, frames: Sequence[Frame]) -> list[Instances]:
        images = zip(self.detections(raw, frames), frames, strict=True)
        return [self._instances(raw, row, found, frame) for row, (found, frame) in enumerate(images)]

    def _instances(self, raw: Raw, row: int, found: Detections, frame: Frame) -> Instances:
        maps = self._maps(raw, row, found.cells, found.boxes)
        return instances_of(to_photo(maps, frame, self.mask_stride), found.labels, found.scores)

    def detections(self, raw: Raw, frames: Sequence[Frame]) -> list[Detections]:
        """The locations of each image that stay after NMS on their boxes."""
        # the threshold is one of classes, as FCOS has it, and what passes is ranked by how near its middle it lies too
        likely = raw.logits.float().sigmoid() > self.point.score_threshold
        images = zip(self._scores(raw) * likely, frames, strict=True)
        return [self._detections(raw, row, scores, frame) for row, (scores, frame) in enumerate(images)]

    @staticmethod
    def _scores(raw: Raw) -> Float[Tensor, "B A C"]:
        """The geometric mean of class probability and centredness."""
        return (raw.logits.float().sigmoid() * raw.centred.float().sigmoid()[..., None]).sqrt()

    def _detections(self, raw: Raw, row: int, scores: Float[Tensor, "A C"], frame: Frame) -> Detections:
        candidates = Candidates.of(scores, replace(self.point, score_threshold=0.0))
        boxes = raw.locations.boxes(raw.sides[row].float())[candidates.cells]
        boxes = box_ops.clip(boxes, frame.resized)
        real = box_ops.not_empty(boxes).nonzero()[:, 0][: self.point.candidates]
        kept = real[batched_nms(boxes[real], candidates.scores[real], candidates.labels[real], self.nms)]
        kept = kept[: self.point.max_instances]
        return Detections(candidates.cells[kept], boxes[kept], candidates.labels[kept], candidates.scores[kept])

    def _maps(
        self, raw: Raw, row: int, cells: Int64[Tensor, " K"], boxes: Float[Tensor, "K 4"]
    ) -> Float[Tensor, "K h w"]:
        """What the embeddings of some locations gather inside their boxes."""
        likely = gathered(raw.pixels[row].float(), raw.embedding[row, cells].float(), raw.sharpness[row, cells].float())
        return likely * inside(boxes, likely.shape[1:], self.mask_stride)

    def given(self, raw: Raw, batch: Batch, oracle: Oracle) -> list[Instances]:
        """What the best of the locations that learn each object gathers in the box it says, of the true class."""
        drawn = []
        for row, (scores, target, frame) in enumerate(zip(self._scores(raw), batch.targets, batch.frames, strict=True)):
            owner = raw.locations.owners(target.boxes, self.ranges, self.radius)
            cells = (owner >= 0).nonzero()[:, 0]
            labels = target.labels[owner[cells]]
            best = first_of_each(owner[cells], scores[cells, labels])
            boxes = box_ops.clip(raw.locations.boxes(raw.sides[row].float())[cells[best]], frame.resized)
            maps = self._maps(raw, row, cells[best], boxes)
            masks = to_photo(maps, frame, self.mask_stride)
            drawn.append(instances_of(masks, labels[best], scores[cells[best], labels[best]]))
        return drawn

    def reach(self, raw: Raw, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        """How many objects have a location that learns them."""
        stages = []
        for target in batch.targets:
            owner = raw.locations.owners(target.boxes, self.ranges, self.radius)
            stages.append({"a location of its own": (len(owner[owner >= 0].unique()), len(target))})
        return stages

    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth at the stride of the pixels' map, resampled to the photo as a prediction is."""
        return resampled(batch, self.mask_stride)


def gathered(
    pixels: Float[Tensor, "E h w"], embedding: Float[Tensor, "K E"], sharpness: Float[Tensor, " K"]
) -> Float[Tensor, "K h w"]:
    """How much each cell is of each object: exp(−d²/2σ²), above one half within its margin (section 3.2)."""
    points = pixels.flatten(1).T
    squared = torch.cdist(embedding, points).square() if len(embedding) else embedding.new_zeros(0, len(points))
    return (-squared * sharpness.exp()[:, None]).exp().unflatten(1, pixels.shape[1:])


def inside(boxes: Float[Tensor, "K 4"], size: Sequence[int], stride: int) -> Bool[Tensor, "K h w"]:
    """The cells that a box covers, all it touches."""
    rows, columns = (torch.arange(side, device=boxes.device) * stride for side in size)
    x = (columns + stride > boxes[:, :1]) & (columns < boxes[:, 2:3])
    y = (rows + stride > boxes[:, 1:2]) & (rows < boxes[:, 3:])
    return y[:, :, None] & x[:, None]


def _grown(boxes: Float[Tensor, "K 4"], share: float) -> Float[Tensor, "K 4"]:
    """Boxes with so much of their sides more on either side."""
    extent = (boxes[:, 2:] - boxes[:, :2]) * share
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], dim=1)
