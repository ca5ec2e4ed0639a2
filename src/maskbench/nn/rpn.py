"""Region proposal network (Ren et al., NeurIPS 2015), over a feature pyramid (Lin et al., CVPR 2017, section 4.1).

B images   A anchors of an image, all levels   K anchors a cell   N anchors that a loss looks at
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from maskbench.nn.blocks import predictor
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import IGNORED, Matcher, Sampler
from maskbench.ops.suppress import best
from maskbench.ops.windows import windows
from maskbench.structures import Frame, Instances

MATCHER = Matcher(positive=0.7, negative=0.3, low_quality=0.3)
"""MMDetection's."""
DETECTRON2_MATCHER = Matcher(positive=0.7, negative=0.3, low_quality=0.0, takes=False)
"""detectron2's and torchvision's: every object has an anchor, and an anchor learns the object that it overlaps most."""
SAMPLER = Sampler(count=256, positive_share=0.5)


class RPNOutput(NamedTuple):
    """Objectness and box deltas of every anchor, level by level."""

    logits: list[Float[Tensor, "B _a"]]
    deltas: list[Float[Tensor, "B _a 4"]]
    anchors: list[Float[Tensor, "_a 4"]]


class RPN(nn.Module):
    """Anchors, their objectness and the proposals they become.

    A loss sees a few hundred of an image's hundred thousand anchors. So the pass over whole maps, which proposals come
    from, is not differentiated, and the loss looks at its anchors again, from the windows of the maps that they were
    computed from: the same losses and gradients, without the activations and the backward pass of all the others.

    Args:
        channels: of the pyramid, which is also the width of the head.
        strides: of the levels.
        depth: convolutions before the two that predict.
        scales: sides of the anchors in strides of their level.
        ratios: height over width; every scale comes in each.
        pre_nms: the best of a level that enter NMS, in training and in prediction.
        post_nms: the best of an image that leave it, likewise.
        nms: overlap at which the lower-scored proposal of a level goes.
        matcher: anchors to true boxes.
        sampler: which anchors the loss sees.
        beta: below it the box loss is quadratic (0: L1).
        inside: whether anchors that cross the edge of their image are left out of the loss.
        rounded: whether the anchors' sides are rounded to whole pixels (torchvision).
    """

    shapes: Tensor

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        depth: int = 1,
        scales: Sequence[float] = (8.0,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        pre_nms: tuple[int, int] = (2000, 1000),
        post_nms: tuple[int, int] = (1000, 1000),
        nms: float = 0.7,
        matcher: Matcher = MATCHER,
        sampler: Sampler = SAMPLER,
        beta: float = 0.0,
        inside: bool = False,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        self.strides, self.pre_nms, self.post_nms, self.nms = tuple(strides), pre_nms, post_nms, nms
        self.matcher, self.sampler, self.beta, self.inside, self.rounded = matcher, sampler, beta, inside, rounded
        self.convs = nn.ModuleList(predictor(channels, channels) for _ in range(depth))
        sides = torch.tensor([[scale / ratio**0.5, scale * ratio**0.5] for ratio in ratios for scale in scales])
        self.register_buffer("shapes", torch.cat([-sides, sides], dim=1) / 2, persistent=False)
        self.objectness = predictor(channels, len(sides), kernel=1)
        self.deltas = predictor(channels, 4 * len(sides), kernel=1)

    @torch.no_grad()
    def forward(self, features: Sequence[Float[Tensor, "B D _h _w"]]) -> RPNOutput:
        """Every anchor, without gradients: those are `losses`'."""
        logits, deltas, anchors = [], [], []
        for feature, stride in zip(features, self.strides, strict=True):
            hidden = feature
            for conv in self.convs:
                hidden = F.relu_(conv(hidden))
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(feature.shape[0], -1, 4))
            anchors.append(self.anchors(feature.shape[-2], feature.shape[-1], stride))
        return RPNOutput(logits, deltas, anchors)

    def anchors(self, height: int, width: int, stride: int) -> Float[Tensor, "A 4"]:
        """The anchors of a level, cell by cell: centred on multiples of the stride, not shifted."""
        y, x = torch.meshgrid(
            torch.arange(height, device=self.shapes.device) * stride,
            torch.arange(width, device=self.shapes.device) * stride,
            indexing="ij",
        )
        centre = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
        shapes = stride * self.shapes
        return (centre + (shapes.round() if self.rounded else shapes)).reshape(-1, 4)

    @torch.no_grad()
    def proposals(
        self, output: RPNOutput, frames: Sequence[Frame], *, training: bool
    ) -> list[tuple[Float[Tensor, "R 4"], Float[Tensor, " R"]]]:
        """Boxes in network pixels and their objectness, descending, image by image; `training` chooses the counts."""
        pre_nms, post_nms = (counts[0 if training else 1] for counts in (self.pre_nms, self.post_nms))
        return [self._select(output, row, frame, pre_nms, post_nms) for row, frame in enumerate(frames)]

    def boxes(self, output: RPNOutput, frames: Sequence[Frame], *, training: bool) -> list[Float[Tensor, "_r 4"]]:
        """The proposals without their objectness."""
        return [boxes for boxes, _ in self.proposals(output, frames, training=training)]

    def _select(
        self, output: RPNOutput, row: int, frame: Frame, pre_nms: int, post_nms: int
    ) -> tuple[Float[Tensor, "R 4"], Float[Tensor, " R"]]:
        tops = [best(logits[row].float(), pre_nms) for logits in output.logits]
        logits, deltas = (
            torch.cat([level[row, top] for level, top in zip(levels, tops, strict=True)]).float()
            for levels in (output.logits, output.deltas)
        )
        anchors = torch.cat([level[top] for level, top in zip(output.anchors, tops, strict=True)])
        level_of = torch.cat([torch.full_like(top, level) for level, top in enumerate(tops)])
        score, boxes = logits.sigmoid(), box_ops.clip(box_ops.decode(anchors, deltas), frame.resized)
        real = box_ops.not_empty(boxes)
        boxes, score, level_of = boxes[real], score[real], level_of[real]
        kept = batched_nms(boxes, score, level_of, self.nms)[:post_nms]
        return boxes[kept], score[kept]

    def losses(
        self,
        features: Sequence[Float[Tensor, "B D _h _w"]],
        anchors: Sequence[Float[Tensor, "_a 4"]],
        targets: Sequence[Instances],
        frames: Sequence[Frame],
    ) -> dict[str, Float[Tensor, ""]]:
        """Objectness and box loss of the sampled anchors, both divided by how many were sampled in the batch."""
        every = torch.cat(list(anchors))
        numbers, positives, moves = [], [], []
        for image, (target, frame) in enumerate(zip(targets, frames, strict=True)):
            matches = self.match(every, target, frame)
            positive, negative = self.sampler(matches)
            numbers.append(image * len(every) + torch.cat([positive, negative]))
            positives.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]).bool())
            moves.append(box_ops.encode(every[positive], target.boxes[matches[positive]]))
        logits, deltas = self.at(features, torch.cat(numbers))
        real = torch.cat(positives)
        count = max(1, len(real))
        return {
            "rpn_objectness": F.binary_cross_entropy_with_logits(logits, real.float(), reduction="sum") / count,
            "rpn_box": F.smooth_l1_loss(deltas[real], torch.cat(moves), beta=self.beta, reduction="sum") / count,
        }

    def at(
        self, features: Sequence[Float[Tensor, "B D _h _w"]], numbers: Int64[Tensor, " N"]
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 4"]]:
        """What `forward` says of some anchors, with gradients; they are numbered image by image, level by level.

        Under autocast both use the same weights, of which torch (from 2.11 on) casts those that are learnt from anew.
        """
        kinds = len(self.shapes)
        cells, cell = (numbers // kinds).unique(return_inverse=True)
        hidden, inside = windows(features, cells, reach=len(self.convs))
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            # each convolution sees zeros outside the map, and not what it would itself make of them
            hidden = F.relu(F.conv2d(hidden * inside, conv.weight, conv.bias))
            inside = inside[..., 1:-1, 1:-1]
        logits = self.objectness(hidden).flatten(1)[cell, numbers % kinds]
        deltas = self.deltas(hidden).view(len(cells), kinds, 4)[cell, numbers % kinds]
        return logits.float(), deltas.float()

    def match(self, anchors: Float[Tensor, "A 4"], target: Instances, frame: Frame) -> Int64[Tensor, " A"]:
        """The true box of each anchor, as the matcher says; those that the loss leaves out are ignored."""
        if not self.inside:
            return self.matcher(anchors, target.boxes)
        height, width = frame.resized
        whole = (anchors >= 0).all(dim=1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
        matches = torch.full((len(anchors),), IGNORED, dtype=torch.long, device=anchors.device)
        matches[whole] = self.matcher(anchors[whole], target.boxes)
        return matches
