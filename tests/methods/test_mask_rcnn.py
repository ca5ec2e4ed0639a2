from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from goldens import Golden, near
from maskbench.methods.mask_rcnn import MaskRCNN, Raw
from maskbench.ops.assign import Sampler

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
def features(golden: Golden) -> list[torch.Tensor]:
    return golden.method.backbone(golden.method.prepare(golden.batch))


@pytest.fixture(scope="module")
def raw(golden: Golden, features: list[torch.Tensor]) -> Raw:
    levels = golden.method.fpn(features)
    return Raw(levels, golden.method.rpn(levels))


@pytest.fixture(scope="module")
def proposals(golden: Golden) -> list[torch.Tensor]:
    return [torch.from_numpy(boxes) for boxes in golden.recipe.fixed_proposals()]


class TestGolden:
    """Weights, batch and proposals of the goldens give what MMDetection computes from them."""

    def test_pyramid(self, golden: Golden, features: list[torch.Tensor], raw: Raw) -> None:
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
    def test_heads(self, golden: Golden, raw: Raw, proposals: list[torch.Tensor]) -> None:
        method = golden.method
        regions = method.pool(raw.features, proposals, 7)
        logits, deltas = method.box_head(regions)
        masks = method.mask_head(method.pool(raw.features, proposals, 14))
        rows = torch.arange(len(masks))
        golden.holds("fixed/roi_feats", regions)
        golden.holds("fixed/cls_score", logits)
        golden.holds("fixed/bbox_pred", deltas.flatten(1))
        golden.holds("fixed/mask_pred", masks[rows, rows % 80])

    def test_samples(self, golden: Golden, proposals: list[torch.Tensor]) -> None:
        regions = golden.method.sample(proposals, golden.batch.targets)
        assert torch.equal(torch.cat(regions.labels), golden["train/roi/labels"])
        for image, (boxes, matched) in enumerate(zip(regions.boxes, regions.matched, strict=True)):
            assert torch.equal(matched, golden[f"train/roi{image}/pos_gt"])
            assert torch.equal(boxes[: len(matched)], golden[f"train/roi{image}/pos_priors"])

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, proposals: list[torch.Tensor]) -> None:
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
