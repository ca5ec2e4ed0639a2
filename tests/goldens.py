"""What MMDetection computed, held against a method: its weights by their rule, its batch, its arrays.

The recipe of weights and images and the reader of the arrays lie beside the arrays, in the shared folder.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from maskbench.methods.base import Segmenter
from maskbench.nn.backbone import Backbone
from maskbench.ops.assign import Sampler
from maskbench.ops.masks import pairwise_iou
from maskbench.ops.regions import Regions
from maskbench.structures import Batch, Frame, Instances, Masks
from maskbench.weights.converting import convert
from maskbench.weights.fitting import fit
from maskbench.weights.layouts.mmdetection import MMDETECTION
from maskbench.weights.renaming import rename

CLASSES = tuple(f"class {label}" for label in range(80))
SIDES = (256, 320)  # of the batch; the second image is padded

RPN_LOSSES = {"loss_rpn_cls": "rpn_objectness", "loss_rpn_bbox": "rpn_box"}


class Golden:
    """A method with the recipe's weights and batch, beside what MMDetection computed from the same.

    Args:
        folder: of the goldens.
        stem: which of them.
        method: its class, built on a ResNet-50 with the paper's settings.
        settings: of the method, where the paper's are not meant.
    """

    def __init__(self, folder: Path, stem: str, method: type[Segmenter], **settings: Any) -> None:
        self.recipe = _module(folder / "recipe.py")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the reader leaves its json open
            self.arrays = _module(folder / "reader.py").Golden(str(folder / stem))
        self.stem = stem.replace("-", "_")
        self.method: Any = method(backbone=Backbone("resnet50"), classes=CLASSES, **settings).eval()
        published = {name: self._weight(name, shape) for name, shape in self.arrays.params()}
        fit(self.method, convert(published, layout="mmdetection", method=self.stem))
        self.batch = self._batch()

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def ours(self, name: str) -> str:
        """Our name of one of MMDetection's weights."""
        ours = rename(name, MMDETECTION.methods[self.stem])
        assert ours is not None
        return ours

    def _weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.asarray(self.recipe.value_for(name, shape)))

    def _batch(self) -> Batch:
        images, targets, frames, semantic = [], [], [], []
        pictures = zip(self.recipe.make_images(), self.recipe.make_gt(), self.recipe.metas(), strict=True)
        for index, (photo, truth, meta) in enumerate(pictures):
            padding = (0, SIDES[1] - photo.shape[1], 0, SIDES[0] - photo.shape[0])
            images.append(F.pad(torch.from_numpy(photo[:, :, ::-1].copy()).permute(2, 0, 1), padding))
            masks = Masks(F.pad(torch.from_numpy(truth["masks"]), padding).bool())
            labels = torch.from_numpy(truth["labels"])
            targets.append(Instances(masks, torch.from_numpy(truth["bboxes"]), labels, torch.ones(len(labels))))
            frames.append(Frame(index, photo=meta["ori_shape"], resized=meta["img_shape"]))
            semantic.append(F.pad(torch.from_numpy(self.recipe.make_sem(index)), padding, value=255))
        return Batch(torch.stack(images), tuple(targets), tuple(frames), torch.stack(semantic))

    def proposals(self) -> list[Tensor]:
        """The fixed ones of each image."""
        return [torch.from_numpy(boxes) for boxes in self.recipe.fixed_proposals()]

    # What is held against it -----------------------------------------------------------------------------------------

    def holds(self, key: str, array: Tensor, tolerance: float = 1e-4) -> None:
        """`array` differs by no more than `tolerance` of the golden's largest value."""
        difference, largest = self.arrays.diff(key, array.detach().numpy())
        assert difference <= tolerance * largest, f"{key}: off by {difference} of {largest}"

    def holds_losses(self, prefix: str, losses: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
        """Each loss, by MMDetection's name and ours."""
        found = {theirs: losses[ours].item() for theirs, ours in names.items()}
        wanted = {theirs: self[f"{prefix}/{theirs}"].item() for theirs in names}
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0)

    def holds_gradients(self, prefix: str, tolerance: float = 1e-3) -> None:
        """The norm of every parameter's gradient, where MMDetection trains it.

        In double precision, since that of millions of entries in single precision is off by a thousandth.
        """
        parameters = dict(self.method.named_parameters())
        wanted = {self.ours(name): norm for name, norm in self.arrays.grad_norms(prefix).items() if norm >= 0}
        found = {name: parameters[name].grad.double().norm().item() for name in wanted}
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=1e-6)

    def holds_regions(self, regions: Regions) -> None:
        """The regions that a first stage trains on, in their order, and what they match."""
        assert torch.equal(regions.all_labels(), self["train/roi/labels"])
        for image, (boxes, matched) in enumerate(zip(regions.boxes, regions.matched, strict=True)):
            assert torch.equal(matched, self[f"train/roi{image}/pos_gt"])
            assert torch.equal(boxes[: len(matched)], self[f"train/roi{image}/pos_priors"])

    def holds_instances(self, prefix: str, found: Instances, overlap: float = 0.98) -> None:
        """As many instances of the same scores, and those whose masks are kept, the best, each among ours.

        SOLO's have no boxes, and those of them that lie in the padding no pixel: these are none of ours.
        """
        scores, labels, boxes, area = (self[f"{prefix}/{name}"] for name in ("scores", "labels", "bboxes", "mask_area"))
        seen = boxes.any(dim=1) | (area > 0)
        torch.testing.assert_close(found.scores, scores[seen][: self.method.point.max_instances], atol=1e-3, rtol=0)
        masks = torch.from_numpy(self.arrays.masks(prefix))
        rows = seen[: len(masks)].nonzero()[:, 0]
        alike = (found.labels[:, None] == labels[rows]) & near(found.scores[:, None], scores[rows, None])
        if boxes.any():
            alike &= near(found.boxes, boxes[rows])
        assert (_overlap(found.masks.dense(), masks[rows]) * alike).amax(dim=0).min() > overlap

    def holds_suppression(
        self, image: int, masks: Tensor, labels: Tensor, scores: Tensor, decayed: Tensor, least: float = 0.05
    ) -> None:
        """SOLO's candidates, the best first, and the scores that Matrix NMS leaves them.

        The masks of the best sixty are kept; what falls below `least`, and the hundredth, MMDetection drops.
        """
        order = self[f"nms{image}/in_scores"].argsort(descending=True)[: self.method.point.candidates]
        wanted, areas, classes = (self[f"nms{image}/in_{name}"][order] for name in ("scores", "area", "labels"))
        torch.testing.assert_close(scores, wanted, atol=1e-3, rtol=0)
        torch.testing.assert_close(masks.sum(dim=(1, 2)).sum(), areas.sum().long(), atol=0, rtol=1e-4)
        best = torch.from_numpy(self.arrays.nms_in_masks(image))
        alike = (labels[:, None] == classes[: len(best)]) & near(scores[:, None], wanted[: len(best), None])
        assert (_overlap(masks, best) * alike).amax(dim=0).min() > 0.99
        left = decayed[decayed >= least].sort(descending=True).values[:100]
        torch.testing.assert_close(left, self[f"nms{image}/out_scores"], atol=1e-3, rtol=0)


def region_golden(folder: Path, stem: str, method: type[Segmenter], **settings: Any) -> Golden:
    """A two-stage method's, which trains on every candidate as the reference does, so that no draw is involved.

    Of an image it reads forty instances.
    """
    golden = Golden(folder, stem, method, **settings)
    golden.method.sampler = Sampler(10**6, 0.25)
    golden.method.rpn.sampler = Sampler(10**6, 0.5)
    golden.method.point = replace(golden.method.point, max_instances=40)  # a mask takes its time
    return golden


def resampled_twice(maps: Tensor, frame: Frame, stride: float) -> Masks:
    """Probabilities brought to the network input and then to the photo, as MMDetection does where we resample once."""
    maps = F.interpolate(maps[:, None], scale_factor=stride, mode="bilinear")
    maps = maps[:, :, : frame.resized[0], : frame.resized[1]]
    return Masks(F.interpolate(maps, size=frame.photo, mode="bilinear")[:, 0] > 0.5)


def near(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Which rows of `a` are those of `b`: rows of near equal scores change places from one machine to another."""
    return (a[:, None] - b).abs().amax(dim=2) < tolerance


def _module(path: Path) -> ModuleType:
    """The module in a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every pair, 1 where both are empty."""
    nothing = ~a.flatten(1).any(dim=1)[:, None] & ~b.flatten(1).any(dim=1)
    return torch.where(nothing, 1.0, pairwise_iou(a, b))
