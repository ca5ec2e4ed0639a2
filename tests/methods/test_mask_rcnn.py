from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goldens import RPN_LOSSES, Golden, near, region_golden
from maskbench.errors import ConfigError
from maskbench.methods.mask_rcnn import MaskRCNN, Raw
from maskbench.nn.backbone import Backbone
from maskbench.nn.roi import MaskHead
from maskbench.nn.upsample import BilinearConv, NearestConv
from maskbench.ops.masks import crop_and_resize, pairwise_iou
from maskbench.ops.regions import Detected
from maskbench.runtime.compose import build_method, composed
from maskbench.structures import Batch, Frame, Instances

ROOT = Path(__file__).resolve().parents[2]

LOSSES = {**RPN_LOSSES, "loss_cls": "class", "loss_bbox": "box", "loss_mask": "mask"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return region_golden(shared / "goldens", "mask-rcnn", MaskRCNN)


@pytest.fixture(scope="module")
def features(golden: Golden) -> list[Tensor]:
    return golden.method.backbone(golden.method.prepare(golden.batch))


@pytest.fixture(scope="module")
def raw(golden: Golden, features: list[Tensor]) -> Raw:
    levels = golden.method.fpn(features)
    return Raw(levels, golden.method.rpn(levels))


@pytest.fixture(scope="module")
def proposals(golden: Golden) -> list[Tensor]:
    return golden.proposals()


class TestGolden:
    """Weights, batch and proposals of the goldens give what MMDetection computes from them."""

    def test_pyramid(self, golden: Golden, features: list[Tensor], raw: Raw) -> None:
        golden.holds("input", golden.method.prepare(golden.batch))
        for level, feature in enumerate(features):
            golden.holds(f"backbone{level}", feature)
        for level, feature in enumerate(raw.features):
            golden.holds(f"fpn{level}", feature)

    def test_proposals(self, golden: Golden, raw: Raw) -> None:
        found = golden.method.rpn.proposals(raw.rpn, golden.batch.frames, training=False)
        for image, (boxes, scores) in enumerate(found):
            wanted, objectness = golden[f"rpn/proposals{image}"], golden[f"rpn/scores{image}"]
            alike = near(boxes, wanted) & near(scores[:, None], objectness[:, None])
            assert len(boxes) == len(wanted)
            assert alike.any(dim=0).all()

    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw, proposals: list[Tensor]) -> None:
        method = golden.method
        regions = method.pool(raw.features, proposals, 7)
        logits, deltas = method.box_head(regions)
        masks = method.mask_head(method.pool(raw.features, proposals, 14))
        rows = torch.arange(len(masks))
        golden.holds("fixed/roi_feats", regions)
        golden.holds("fixed/cls_score", logits)
        golden.holds("fixed/bbox_pred", deltas.flatten(1))
        golden.holds("fixed/mask_pred", masks[rows, rows % 80])

    def test_samples(self, golden: Golden, proposals: list[Tensor]) -> None:
        golden.holds_regions(golden.method.sample(proposals, golden.batch.targets))

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, proposals: list[Tensor]) -> None:
        method, targets = golden.method, golden.batch.targets
        rpn_losses = method.rpn.losses(raw.features, raw.rpn.anchors, targets, golden.batch.frames)
        losses = {**rpn_losses, **method.roi_losses(raw.features, proposals, targets)}
        golden.holds_losses("loss_fixed", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_fixed")

    @torch.no_grad()
    def test_losses_on_its_own_proposals(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        golden.holds_losses("loss_full", golden.method.loss(golden.batch), LOSSES)


class SaysTheTruth(nn.Module):
    """A head that gives the rows it was made with, whatever it is shown."""

    def __init__(self, pool: int, *answers: Tensor) -> None:
        super().__init__()
        self.pool, self.size, self.answers = pool, 2 * pool, answers

    def forward(self, regions: Tensor) -> Any:
        return self.answers if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def method(classes: tuple[str, ...]) -> MaskRCNN:
    backbone = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})
    return MaskRCNN(backbone=backbone, classes=classes, width=8, box_width=8, mask_width=8, mask_depth=1)


def with_the_truth(method: MaskRCNN, batch: Batch) -> tuple[MaskRCNN, list[Tensor], list[Tensor]]:
    """Heads that know the true boxes for what they are; pyramid and proposals to go with them."""
    labels = torch.cat([target.labels for target in batch.targets])
    maps = [crop_and_resize(target.masks.dense(), target.boxes, 28) for target in batch.targets]
    own = torch.where(torch.cat(maps)[:, None], 20.0, -20.0)
    drawn = torch.where(F.one_hot(labels, 2).bool()[:, :, None, None], own, -own)
    method.box_head = SaysTheTruth(7, 20 * F.one_hot(labels, 3).float(), torch.zeros(len(labels), 2, 4))
    method.mask_head = SaysTheTruth(14, drawn)
    features = [torch.zeros(2, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
    return method, features, [target.boxes for target in batch.targets]


class TestDetection:
    def test_the_truth_as_proposals_gives_what_can_be_drawn_of_it(
        self, method: MaskRCNN, batch: Batch, truth: list[Instances]
    ) -> None:
        method, features, proposals = with_the_truth(method, batch)
        found = method.detect(features, proposals, batch.frames)
        for instances, ceiling, true, target in zip(found, method.ceiling(batch), truth, batch.targets, strict=True):
            assert torch.equal(instances.masks.dense(), ceiling.masks.dense())
            assert torch.equal(instances.labels, target.labels)
            torch.testing.assert_close(instances.boxes, ceiling.boxes)
            torch.testing.assert_close(instances.scores, torch.ones(len(target)), atol=1e-4, rtol=0)
            assert pairwise_iou(instances.masks.dense(), true.masks.dense()).diagonal().min() > 0.93

    def test_nothing_above_the_threshold(self, method: MaskRCNN, batch: Batch) -> None:
        method, features, proposals = with_the_truth(method, batch)
        count = len(torch.cat(proposals))
        method.box_head = SaysTheTruth(7, torch.tensor([[0.0, 0, 20]]).repeat(count, 1), torch.zeros(count, 2, 4))
        method.mask_head = MaskHead(8, 2, width=8, depth=1)
        found = method.detect(features, proposals, batch.frames)
        assert [len(instances) for instances in found] == [0, 0]
        assert [instances.masks.size for instances in found] == [frame.photo for frame in batch.frames]

    def test_without_proposals(self, method: MaskRCNN, batch: Batch) -> None:
        features = [torch.zeros(2, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        found = method.detect(features, [torch.zeros(0, 4), torch.zeros(0, 4)], batch.frames)
        assert [len(instances) for instances in found] == [0, 0]


class TestSelection:
    """Three boxes of one place and one apart, two classes: logits are log-probabilities."""

    boxes = torch.tensor([[0.0, 0, 20, 20], [1, 0, 21, 20], [0, 0, 20, 20], [60, 60, 90, 90]])
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.3, 0.04, 0.66]])

    def select(self, method: MaskRCNN, **point: Any) -> list[tuple[int, float]]:
        method.point = replace(method.point, **point)
        method.box_head = SaysTheTruth(7, self.probabilities.log(), torch.zeros(4, 2, 4))
        features = [torch.zeros(1, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        (found,) = method.detect(features, [self.boxes], [Frame(1, photo=(128, 128), resized=(128, 128))])
        return [
            (label, round(score, 2)) for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        ]

    def test_of_one_class_and_place_the_best_stays(self, method: MaskRCNN) -> None:
        assert self.select(method, score_threshold=0.06) == [(0, 0.9), (1, 0.6), (0, 0.3)]

    def test_the_threshold_itself_does_not_pass(self, method: MaskRCNN) -> None:
        assert self.select(method, score_threshold=0.3) == [(0, 0.9), (1, 0.6)]

    def test_candidates_and_instances_are_limited(self, method: MaskRCNN) -> None:
        assert self.select(method, candidates=2) == [(0, 0.9)]
        assert self.select(method, candidates=None, max_instances=2) == [(0, 0.9), (1, 0.6)]


class TestTraining:
    def test_the_truth_costs_nothing(self, method: MaskRCNN, batch: Batch) -> None:
        """The true boxes are among the candidates, so no proposal is needed."""
        method, features, _ = with_the_truth(method, batch)
        losses = method.roi_losses(features, [torch.zeros(0, 4), torch.zeros(0, 4)], batch.targets)
        assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
            {"class": 0, "box": 0, "mask": 0}, abs=1e-5
        )

    def test_without_objects_every_region_is_background(self, method: MaskRCNN, without_objects: Batch) -> None:
        proposals = [torch.tensor([[10.0, 10, 40, 40]])] * 2
        features = [torch.randn(2, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        losses = method.roi_losses(features, proposals, without_objects.targets)
        assert torch.cat(method.sample(proposals, without_objects.targets).labels).tolist() == [2, 2]
        assert (losses["box"].item(), losses["mask"].item()) == (0, 0)
        assert losses["class"].item() > 0


class TestParts:
    """What can be exchanged in it, from a configuration."""

    @pytest.fixture
    def build(self, classes: tuple[str, ...]) -> Callable[..., MaskRCNN]:
        def build(*overrides: str) -> MaskRCNN:
            words = ["method=small/mask_rcnn", "backbone=tiny", *overrides]
            method = build_method(composed("train", words), classes)
            assert isinstance(method, MaskRCNN)
            return method

        return build

    @pytest.mark.parametrize("pool", ["roi_align", "roi_align_1", "roi_warp", "roi_pool"])
    @pytest.mark.parametrize("mask", ["per_class_sigmoid", "class_agnostic", "softmax"])
    def test_pools_and_kinds_of_masks(self, build: Callable[..., MaskRCNN], batch: Batch, pool: str, mask: str) -> None:
        method = build(f"method/pool={pool}", f"method/mask={mask}").eval()
        losses = method.loss(batch)
        torch.stack(list(losses.values())).sum().backward()
        assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)
        assert method.mask_head.logits.out_channels == {"per_class_sigmoid": 2, "class_agnostic": 1, "softmax": 3}[mask]

    @pytest.mark.parametrize(("upsample", "kind"), [("nearest_conv", NearestConv), ("bilinear_conv", BilinearConv)])
    def test_ways_to_double_the_mask(
        self, build: Callable[..., MaskRCNN], upsample: str, kind: type[nn.Module]
    ) -> None:
        head = build(f"method/upsample={upsample}").mask_head
        assert isinstance(head.upsample, kind)
        assert head(torch.randn(1, 48, 14, 14)).shape == (1, 2, 28, 28)

    def test_an_unknown_variant(self, build: Callable[..., MaskRCNN]) -> None:
        with pytest.raises(ConfigError, match="expected one of mmdet, detectron2, torchvision"):
            build("method.variant=tensorflow")

    def test_refined_masks(self, build: Callable[..., MaskRCNN], batch: Batch) -> None:
        method = build("method/refine=points", "method.refine.width=8").eval()
        assert "point" in method.loss(batch)
        levels = method(method.prepare(batch)).features
        labels, boxes = torch.zeros(1, dtype=torch.long), torch.tensor([[10.0, 10, 60, 60]])
        nothing = Detected(boxes[:0], labels[:0], torch.zeros(0))
        masks = method.masks(levels, [Detected(boxes, labels, torch.ones(1)), nothing])
        assert masks.shape == (1, 224, 224)
        plain = build()
        finer = zip(method.ceiling(batch), plain.ceiling(batch), batch.targets, strict=True)
        assert all(len(fine) == len(coarse) == len(target) for fine, coarse, target in finer)
        assert any(
            not torch.equal(fine.masks.dense(), coarse.masks.dense())
            for fine, coarse in zip(method.ceiling(batch), plain.ceiling(batch), strict=True)
        )
