"""Box heads one after the other, each trained at a higher overlap on what the one before made of its boxes.

Cai & Vasconcelos, "Cascade R-CNN", CVPR 2018, arXiv 1712.00726. Cascade Mask R-CNN and HTC are built on it.

R regions   C classes   T stages
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maskbench.errors import ConfigError
from maskbench.nn.roi import BoxHead
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import Matcher, Sampler
from maskbench.ops.regions import Regions, box_losses, sample
from maskbench.structures import Frame, Instances

Average = Callable[[Sequence[Float[Tensor, "R C"]]], Float[Tensor, "R C"]]
"""Class logits of every stage → probabilities."""


def average_logits(logits: Sequence[Float[Tensor, "R C"]]) -> Float[Tensor, "R C"]:
    """The softmax of the mean logits (MMDetection)."""
    return torch.stack([stage.float() for stage in logits]).mean(dim=0).softmax(dim=1)


def average_probabilities(logits: Sequence[Float[Tensor, "R C"]]) -> Float[Tensor, "R C"]:
    """The mean of the softmax probabilities (the paper, detectron2)."""
    return torch.stack([stage.float().softmax(dim=1) for stage in logits]).mean(dim=0)


class BoxCascade(nn.Module):
    """The box heads, whose boxes are the same for all classes.

    Args:
        channels: of a pooled region.
        classes: without background.
        overlaps: from which on a region is positive, stage by stage.
        delta_weights: of the stages; the later, the finer the deltas.
        width: of the box heads' layers.
        beta: below it the box loss is quadratic (0: L1).
        low_quality: whether an object takes the region that it overlaps most although another overlaps it more.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        overlaps: Sequence[float],
        delta_weights: Sequence[box_ops.DeltaWeights],
        width: int = 1024,
        beta: float = 1.0,
        low_quality: bool = False,
    ) -> None:
        super().__init__()
        if not 1 <= len(overlaps) <= len(delta_weights):
            raise ConfigError(f"a cascade has one to {len(delta_weights)} stages, found overlaps {list(overlaps)}")
        self.heads = nn.ModuleList(BoxHead(channels, classes, width=width, agnostic=True) for _ in overlaps)
        self.matchers = [Matcher(overlap, overlap, overlap if low_quality else None) for overlap in overlaps]
        self.delta_weights = tuple(delta_weights)
        self.classes, self.beta = classes, beta

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def pool(self) -> int:
        """Cells a side of a pooled region."""
        head = self.heads[0]
        assert isinstance(head, BoxHead)
        return head.pool

    def forward(
        self, stage: int, pooled: Float[Tensor, "R D s s"]
    ) -> tuple[Float[Tensor, "R {self.classes}+1"], Float[Tensor, "R 1 4"]]:
        """Class logits and deltas of one stage."""
        return self.heads[stage](pooled)

    def sample(
        self,
        stage: int,
        proposals: Sequence[Float[Tensor, "_r 4"]],
        targets: Sequence[Instances],
        sampler: Sampler,
        *,
        with_truth: bool = True,
    ) -> Regions:
        """Regions by the overlap that this stage asks for."""
        return sample(proposals, targets, self.matchers[stage], sampler, self.classes, with_truth=with_truth)

    def losses(
        self, stage: int, logits: Tensor, deltas: Tensor, regions: Regions, targets: Sequence[Instances]
    ) -> dict[str, Float[Tensor, ""]]:
        return box_losses(logits, deltas, regions, targets, self.delta_weights[stage], self.beta)

    def refine(
        self,
        stage: int,
        boxes: Sequence[Float[Tensor, "_r 4"]],
        deltas: Float[Tensor, "R 1 4"],
        frames: Sequence[Frame],
    ) -> list[Float[Tensor, "_r 4"]]:
        """The boxes moved by a stage's deltas and cut to their images; no gradient flows through them."""
        parts = deltas.detach().float().split([len(box) for box in boxes])
        return [
            box_ops.clip(box_ops.decode(box, part, self.delta_weights[stage])[:, 0], frame.resized)
            for box, part, frame in zip(boxes, parts, frames, strict=True)
        ]

    def predict(
        self,
        pool: Callable[[Sequence[Tensor]], Float[Tensor, "R D s s"]],
        proposals: Sequence[Float[Tensor, "_r 4"]],
        frames: Sequence[Frame],
        average: Average,
    ) -> tuple[list[Float[Tensor, "_r 4"]], Float[Tensor, "R C"]]:
        """The boxes of the last stage and their class probabilities, of which every stage has a say.

        Args:
            pool: boxes of every image → their pooled features.
            proposals: in network pixels.
            frames: of the images.
            average: how the stages' class logits become one.
        """
        boxes, logits = zip(*self.stages(pool, proposals, frames), strict=True)
        return boxes[-1], average(logits)

    def stages(
        self,
        pool: Callable[[Sequence[Tensor]], Float[Tensor, "R D s s"]],
        proposals: Sequence[Float[Tensor, "_r 4"]],
        frames: Sequence[Frame],
    ) -> Iterator[tuple[list[Float[Tensor, "_r 4"]], Float[Tensor, "R C"]]]:
        """Where each stage moves the boxes of the one before, and their class logits; arguments as of `predict`."""
        boxes = list(proposals)
        for stage in range(len(self)):
            logits, deltas = self(stage, pool(boxes))
            boxes = self.refine(stage, boxes, deltas, frames)
            yield boxes, logits
