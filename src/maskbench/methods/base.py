"""What every method shares: the four functions it must write, and the steps of training and prediction around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict

import torch
from jaxtyping import Float, Int64
from lightning import LightningModule
from torch import Tensor

from maskbench.methods.optim import Optim, Scheduled
from maskbench.nn.backbone import Backbone
from maskbench.structures import Batch, Frame, Instances, OperatingPoint

Paradigm = Literal["two-stage", "one-stage", "bottom-up", "hybrid"]


Oracle = Literal["boxes", "cells", "semantic map", "centres", "flows", "count"]
"""What of the truth a method can be given in the place of what it finds itself."""


class Tested(NamedTuple):
    """What is found in the images of a batch, also with the help of oracles, and how far the true objects come."""

    instances: list[Instances]
    reach: list[dict[str, tuple[int, int]]]
    given: dict[Oracle, list[Instances]]
    semantic_areas: list[Int64[Tensor, "3 C"]]


class Common(TypedDict, total=False):
    """The arguments that every method hands on to `Segmenter`."""

    backbone: Backbone
    classes: Sequence[str]
    optim: Optim | None
    point: OperatingPoint | None


class Segmenter(LightningModule, ABC):
    """An instance segmentation method.

    A method writes its constructor, `forward`, `loss`, `instances` and `ceiling`; nothing in it depends on
    `self.training`, on a device or on a configuration object.

    Args:
        backbone: the feature extractor, which owns the pixel statistics.
        classes: the names of the classes; labels are indices into it.
        optim: builds optimiser and schedule (default: AdamW with a cosine).
        point: score threshold, candidates and instances an image (default: the paper's, `default_point`).
    """

    paradigm: ClassVar[Paradigm]
    default_point: ClassVar[OperatingPoint]
    oracles: ClassVar[tuple[Oracle, ...]] = ()
    """What `given` can put in the place of the method's own findings."""

    def __init__(
        self,
        *,
        backbone: Backbone,
        classes: Sequence[str],
        optim: Optim | None = None,
        point: OperatingPoint | None = None,
    ) -> None:
        super().__init__()
        if not classes:
            raise ValueError("a method needs the name of at least one class, found none")
        self.backbone = backbone
        self.classes = tuple(classes)
        self.optim = optim or Optim()
        self.point = point or self.default_point

    # What a method writes --------------------------------------------------------------------------------------------

    @abstractmethod
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Any:
        """The network: normalised images → its typed raw output."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses by name; the objective is their sum. Every trainable parameter gets a gradient from it."""

    @abstractmethod
    def instances(self, raw: Any, frames: Sequence[Frame]) -> list[Instances]:
        """Raw output → instances in photo pixels, scores in [0, 1] descending, at most `point.max_instances`."""

    @abstractmethod
    def ceiling(self, batch: Batch) -> list[Instances]:
        """The truth at the resolution of this method's masks, in photo pixels: what training can come near to."""

    def reach(self, raw: Any, batch: Batch) -> list[dict[str, tuple[int, int]]]:
        """How far the true objects of each image come: by stage, how many come through it and of how many.

        Named are the stages of the paradigm that what follows starts from; a method may have none.
        """
        return [{} for _ in batch.frames]

    def semantic_areas(self, raw: Any, batch: Batch) -> list[Int64[Tensor, "3 C"]]:
        """`ops.grouping.SemanticMap.areas` of each image; of none where a method makes no semantic maps."""
        return []

    def given(self, raw: Any, batch: Batch, oracle: Oracle) -> list[Instances]:
        """`instances`, were a part of the truth known: what the rest of the method makes of it.

        Where the truth leaves no score of the method's own, scores say how sure the masks are (`ops.masks.maskness`).

        Args:
            raw: the network's output.
            batch: with its targets.
            oracle: one of `oracles`.
        """
        raise NotImplementedError(f"{type(self).__name__} names {oracle} among its oracles and has no `given`")

    @property
    def choices(self) -> dict[str, tuple[float, ...]]:
        """Settings of prediction that the tune split chooses, by name, and the values among which it does."""
        return {}

    def choose(self, setting: str, value: float) -> None:
        """Read the raw output with this value from now on; one of `choices`."""
        raise NotImplementedError(f"{type(self).__name__} names {setting} among its choices and has no `choose`")

    # What follows from it --------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> Float[Tensor, "B 3 H W"]:
        """Bytes → what the network takes: normalised on the device, the padding zero afterwards."""
        images = self.backbone.normalise(batch.images)
        for image, frame in zip(images, batch.frames, strict=True):
            height, width = frame.resized
            image[:, height:] = 0
            image[:, :, width:] = 0
        return images

    def predict(self, batch: Batch) -> list[Instances]:
        """The instances of each image, in photo pixels."""
        return self.instances(self(self.prepare(batch)), batch.frames)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.loss(batch)
        total = torch.stack(list(losses.values())).sum()
        named = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict({**named, "train/loss": total.detach()}, batch_size=len(batch))
        return total

    # Lightning hands what these two return to its callbacks as it is; its annotation knows tensors and mappings alone.
    def validation_step(self, batch: Batch, batch_idx: int) -> list[Instances]:  # type: ignore[override]
        """The predictions, for whichever callback measures them."""
        return self.predict(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> Tested:  # type: ignore[override]
        raw = self(self.prepare(batch))
        given = {oracle: self.given(raw, batch, oracle) for oracle in self.oracles}
        return Tested(self.instances(raw, batch.frames), self.reach(raw, batch), given, self.semantic_areas(raw, batch))

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Instances]:
        return self.predict(batch)

    def configure_optimizers(self) -> Scheduled:
        return self.optim(self, int(self.trainer.estimated_stepping_batches))
