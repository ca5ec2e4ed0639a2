"""PointRend's refinement: ask a small network about the points that a coarse mask is least sure of.

Kirillov, Wu, He & Girshick, CVPR 2020, arXiv 1912.08193. A part that any method with masks in boxes can carry.

N regions   K channels of a mask head   D feature channels   S points   m cells a side of a coarse mask
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn.blocks import in_cache, kaiming
from maskbench.ops.mask_kinds import MaskKind
from maskbench.ops.points import cell_centres, in_frame, sample_masks, sample_points, sample_regions
from maskbench.ops.regions import Regions
from maskbench.phases import phase
from maskbench.structures import Instances

Draw = Callable[[int, int], Float[Tensor, "N S 2"]]
"""Random points: regions, points of each → uniform in 0…1."""


@runtime_checkable
class Refine(Protocol):
    """Builds the refinement for features of `channels` at a stride, and a mask head of `outputs` channels."""

    def __call__(self, channels: int, stride: int, outputs: int) -> PointRefinement: ...


class PointRefinement(nn.Module):
    """The point head and its two ways of choosing points (sections 3.1 and 3.2).

    Args:
        channels: of the fine features.
        stride: of their level, in network pixels.
        outputs: of the mask head whose masks are refined.
        width: of the point head's layers, of which there are `depth`.
        points: how many an instance is trained on.
        oversample: times as many are drawn to choose the uncertain ones among.
        important: share of the uncertain ones among the points; the others are drawn anew.
        subdivisions: how often the side of a mask is doubled in prediction.
        budget: points that are asked for in each of them; a mask of fewer cells is left as it is, but the last.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        outputs: int,
        *,
        width: int = 256,
        depth: int = 3,
        points: int = 196,
        oversample: int = 3,
        important: float = 0.75,
        subdivisions: int = 5,
        budget: int = 784,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.points, self.oversample, self.important = points, oversample, important
        self.subdivisions, self.budget = subdivisions, budget
        self.layers = nn.ModuleList(
            nn.Conv1d((channels if step == 0 else width) + outputs, width, 1) for step in range(depth)
        )
        self.logits = nn.Conv1d(width + outputs, outputs, 1)
        kaiming(*self.layers)
        nn.init.normal_(self.logits.weight, std=0.001)
        assert self.logits.bias is not None
        nn.init.zeros_(self.logits.bias)

    def forward(self, fine: Float[Tensor, "N D S"], coarse: Float[Tensor, "N K S"]) -> Float[Tensor, "N K S"]:
        """Logits at points; the coarse ones are shown to every layer anew."""
        return in_cache(self._ask, fine, coarse, values=fine.shape[2] * self.logits.in_channels)

    def _ask(self, fine: Float[Tensor, "N D S"], coarse: Float[Tensor, "N K S"]) -> Float[Tensor, "N K S"]:
        hidden = fine
        for layer in self.layers:
            hidden = F.relu_(_of_both(layer, hidden, coarse))
        return _of_both(self.logits, hidden, coarse)

    # Training --------------------------------------------------------------------------------------------------------

    def loss(
        self,
        feature: Float[Tensor, "B D h w"],
        positives: Regions,
        coarse: Float[Tensor, "N K m m"],
        targets: Sequence[Instances],
        kind: MaskKind,
        draw: Draw | None = None,
    ) -> Float[Tensor, ""]:
        """How far the logits at the chosen points are from the true masks there, bilinear and not rounded.

        Args:
            feature: the finest level.
            positives: the regions that hold an object.
            coarse: their masks' logits.
            targets: what they match.
            kind: what the channels stand for.
            draw: random points (default: uniform).
        """
        labels = torch.cat(positives.labels)
        points = self.choose(coarse, labels, kind, draw or _uniform_on(coarse.device))
        fine = sample_regions(feature, positives.boxes, points, self.stride)
        logits = self(fine, sample_points(coarse, points)).float()
        size = (feature.shape[2] * self.stride, feature.shape[3] * self.stride)
        parts = points.split([len(boxes) for boxes in positives.boxes])
        wanted = [
            sample_masks(target.masks.dense(), match, in_frame(part, boxes, size))
            for target, match, part, boxes in zip(targets, positives.matched, parts, positives.boxes, strict=True)
        ]
        return kind.loss(logits, labels, torch.cat(wanted))

    @torch.no_grad()
    def choose(
        self, coarse: Float[Tensor, "N K m m"], labels: Int64[Tensor, " N"], kind: MaskKind, draw: Draw
    ) -> Float[Tensor, "N S 2"]:
        """Mostly points of little certainty, measured at the points and not between cells (section 3.1)."""
        candidates = draw(len(coarse), self.points * self.oversample)
        certainty = kind.margin(sample_points(coarse, candidates), labels).abs()
        uncertain = int(self.points * self.important)
        rows = certainty.topk(uncertain, dim=1, largest=False).indices
        chosen = candidates.gather(1, rows[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, draw(len(coarse), self.points - uncertain)], dim=1)

    # Prediction ------------------------------------------------------------------------------------------------------

    @phase("heads")
    def refine(
        self,
        feature: Float[Tensor, "B D h w"],
        boxes: Sequence[Float[Tensor, "_n 4"]],
        coarse: Float[Tensor, "N K m m"],
        labels: Int64[Tensor, " N"],
        kind: MaskKind,
    ) -> Float[Tensor, "N s s"]:
        """Log odds of the masks, doubled step by step, the least certain cells of each asked anew (section 3.2)."""
        refined = kind.margin(coarse, labels)
        for _, doubled in self.subdivided(feature, boxes, coarse, labels, kind):
            refined = doubled
        return refined

    def subdivided(
        self,
        feature: Float[Tensor, "B D h w"],
        boxes: Sequence[Float[Tensor, "_n 4"]],
        coarse: Float[Tensor, "N K m m"],
        labels: Int64[Tensor, " N"],
        kind: MaskKind,
    ) -> Iterator[tuple[Float[Tensor, "N S 2"], Float[Tensor, "N s s"]]]:
        """The points that each step asks for, in shares of the box, and the log odds after it.

        The coarse logits of all channels are read at points alone: what is doubled is one map a region.
        """
        refined = kind.margin(coarse, labels)[:, None]
        for step in range(1, self.subdivisions + 1):
            refined = F.interpolate(refined, scale_factor=2, mode="bilinear", align_corners=False)
            height, width = refined.shape[2:]
            if 4 * height * width <= self.budget and step < self.subdivisions:
                continue  # the next step asks for every cell
            cells = refined.abs().flatten(1).topk(min(self.budget, height * width), dim=1, largest=False).indices
            points = cell_centres(cells, (height, width))
            fine = sample_regions(feature, boxes, points, self.stride)
            asked = kind.margin(self(fine, sample_points(coarse, points)), labels).to(refined.dtype)
            refined = refined.flatten(1).scatter(1, cells, asked).view_as(refined)
            yield points, refined[:, 0]


def _of_both(
    layer: nn.Module, hidden: Float[Tensor, "N D S"], coarse: Float[Tensor, "N K S"]
) -> Float[Tensor, "N E S"]:
    """A 1×1 convolution over both under each other; a CPU is faster at the two products that it is the sum of."""
    assert isinstance(layer, nn.Conv1d)
    assert layer.bias is not None
    if hidden.device.type != "cpu":
        return layer(torch.cat([hidden, coarse], dim=1))
    weight = layer.weight.squeeze(2).expand(len(hidden), -1, -1)
    own, shown = weight.split([hidden.shape[1], coarse.shape[1]], dim=2)
    return torch.baddbmm(torch.baddbmm(layer.bias[:, None], shown, coarse), own, hidden)


def _uniform_on(device: torch.device) -> Draw:
    return lambda regions, points: torch.rand(regions, points, 2, device=device)
