from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goldens import Golden, near
from maskbench.methods.mask_rcnn import MaskRCNN, Raw
from maskbench.nn.backbone import Backbone
from maskbench.nn.roi import MaskHead
from maskbench.ops.assign import Sampler
from maskbench.ops.masks import crop_and_resize, pairwise_iou
from maskbench.structures import Batch, Frame, Instances

HEADS = {
    r"^rpn_head\.rpn_conv": "rpn.conv",
    r"^rpn_head\.rpn_cls": "rpn.objectness",
    r"^rpn_head\.rpn_reg": "rpn.deltas",
    r"^roi_head\.bbox_head\.shared_fcs\.0": "box_head.hidden.1",
    r"^roi_head\.bbox_head\.shared_fcs\.1": "box_head.hidden.3",
    r"^roi_head\.bbox_head\.fc_cls": "box_head.classify",
    r"^roi_head\.bbox_head\.fc_reg": "box_head.regress",
    r"^roi_head\.mask_head\.convs\.(\d)\.conv": r"mask_head.convs.\1",
    r"^roi_head\.mask_head\.conv_logits": "mask_head.logits",
    r"^roi_head\.mask_head\.upsample": "mask_head.upsample",
}
RPN_LOSSES = {"loss_rpn_cls": "rpn_objectness", "loss_rpn_bbox": "rpn_box"}
LOSSES = {**RPN_LOSSES, "loss_cls": "class", "loss_bbox": "box", "loss_mask": "mask"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    golden = Golden(shared / "goldens", "mask-rcnn", MaskRCNN, HEADS)
    # The reference takes every candidate, so that no draw is involved.
    golden.method.sampler = Sampler(10**6, 0.25)
    golden.method.rpn.sampler = Sampler(10**6, 0.5)
    golden.method.point = replace(golden.method.point, max_instances=40)  # of 100: a mask takes its time
    return golden


@pytest.fixture(scope="module")
def features(golden: Golden) -> list[Tensor]:
    return golden.method.backbone(golden.method.prepare(golden.batch))


@pytest.fixture(scope="module")
def raw(golden: Golden, features: list[Tensor]) -> Raw:
    levels = golden.method.fpn(features)
    return Raw(levels, golden.method.rpn(levels))


@pytest.fixture(scope="module")
def proposals(golden: Golden) -> list[Tensor]:
    return [torch.from_numpy(boxes) for boxes in golden.recipe.fixed_proposals()]


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
        regions = golden.method.sample(proposals, golden.batch.targets)
        assert torch.equal(torch.cat(regions.labels), golden["train/roi/labels"])
        for image, (boxes, matched) in enumerate(zip(regions.boxes, regions.matched, strict=True)):
            assert torch.equal(matched, golden[f"train/roi{image}/pos_gt"])
            assert torch.equal(boxes[: len(matched)], golden[f"train/roi{image}/pos_priors"])

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, proposals: list[Tensor]) -> None:
        method, targets = golden.method, golden.batch.targets
        rpn_losses = method.rpn.losses(raw.rpn, targets)
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

    def test_positives_stand_first_and_know_their_object(self, method: MaskRCNN, batch: Batch) -> None:
        far = torch.tensor([[100.0, 0, 127, 10]])
        near_the_second = batch.targets[0].boxes[1:2] + torch.tensor([2.0, -1, 2, 1])
        regions = method.sample([torch.cat([far, near_the_second]), far], batch.targets)
        assert [len(boxes) for boxes in regions.boxes] == [5, 3]
        assert regions.matched[0].tolist() == [0, 1, 2, 1]
        assert regions.labels[0].tolist() == [*batch.targets[0].labels.tolist(), batch.targets[0].labels[1].item(), 2]
        assert torch.equal(regions.boxes[0][3:], torch.cat([near_the_second, far]))

    def test_regions_are_counted(self, method: MaskRCNN, batch: Batch) -> None:
        method.sampler = Sampler(8, 0.25)
        corner = torch.rand(50, 2) * 100
        proposals = [torch.cat([corner, corner + 8], dim=1)] * 2
        regions = method.sample(proposals, batch.targets)
        assert [len(boxes) for boxes in regions.boxes] == [8, 8]
        assert [len(matched) for matched in regions.matched] == [2, 2]

    def test_box_and_class_are_divided_by_all_regions(self, method: MaskRCNN, batch: Batch) -> None:
        """Five true boxes, as many regions far from them; deltas off by 0.1 cost 0.4 each, even logits log 3."""
        far = torch.tensor([[100.0, 0, 127, 10], [0, 110, 20, 127]])
        method, features, _ = with_the_truth(method, batch)
        method.box_head = SaysTheTruth(7, torch.zeros(9, 3), torch.full((9, 2, 4), 0.1))
        regions = method.sample([far, far], batch.targets)
        losses = method.box_losses(features, regions, batch.targets)
        assert losses["class"].item() == pytest.approx(math.log(3))
        assert losses["box"].item() == pytest.approx(0.4 * 5 / 9)

    def test_without_objects_every_region_is_background(self, method: MaskRCNN, without_objects: Batch) -> None:
        proposals = [torch.tensor([[10.0, 10, 40, 40]])] * 2
        regions = method.sample(proposals, without_objects.targets)
        features = [torch.randn(2, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        losses = method.roi_losses(features, proposals, without_objects.targets)
        assert torch.cat(regions.labels).tolist() == [2, 2]
        assert (losses["box"].item(), losses["mask"].item()) == (0, 0)
        assert losses["class"].item() > 0
