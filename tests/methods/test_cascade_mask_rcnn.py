from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goldens import RPN_LOSSES, Golden, region_golden
from maskbench.errors import ConfigError
from maskbench.methods.cascade_mask_rcnn import CascadeMaskRCNN, Raw
from maskbench.nn.backbone import Backbone
from maskbench.nn.cascade import average_logits
from maskbench.nn.points import PointRefinement
from maskbench.ops.regions import Detected
from maskbench.structures import Batch

STAGE = {"loss_cls": "class", "loss_bbox": "box", "loss_mask": "mask"}
LOSSES = {**RPN_LOSSES, **{f"s{t}.{theirs}": f"s{t}_{ours}" for t in range(3) for theirs, ours in STAGE.items()}}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return region_golden(shared / "goldens", "cascade-mask-rcnn", CascadeMaskRCNN)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden:
    """Weights, batch and proposals of the goldens give what MMDetection computes from them."""

    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw) -> None:
        method, proposals, labels = golden.method, golden.proposals(), golden["fixed/mask_labels"]
        boxes, masks = method.pool(raw.features, proposals, 7), method.pool(raw.features, proposals, 14)
        for stage in range(3):
            logits, deltas = method.cascade(stage, boxes)
            golden.holds(f"fixed/s{stage}.cls_score", logits)
            golden.holds(f"fixed/s{stage}.bbox_pred", deltas[:, 0])
            golden.holds(f"fixed/s{stage}.mask_pred", method.mask_kind.margin(method.mask_heads[stage](masks), labels))

    @torch.no_grad()
    def test_refined_boxes(self, golden: Golden, raw: Raw) -> None:
        method, seen = golden.method, []

        def pool(boxes: list[Tensor]) -> Tensor:
            seen.append(torch.cat(boxes))
            return method.pool(raw.features, boxes, 7)

        _, probabilities = method.cascade.predict(pool, golden.proposals(), golden.batch.frames, average_logits)
        golden.holds("refine/rois", torch.cat([golden["refine/rois"][:, :1], seen[2]], dim=1))
        torch.testing.assert_close(probabilities, golden["refine/cls_logits_mean"].softmax(dim=1), rtol=0, atol=1e-4)

    def test_samples(self, golden: Golden) -> None:
        golden.holds_regions(golden.method.sample(0, golden.proposals(), golden.batch.targets))

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.detect(raw.features, golden.proposals(), golden.batch.frames)):
            golden.holds_instances(f"pred_fixed/{image}", found)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw) -> None:
        method, batch = golden.method, golden.batch
        rpn_losses = method.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames)
        losses = rpn_losses | method.roi_losses(raw.features, golden.proposals(), batch.targets, batch.frames)
        golden.holds_losses("loss_fixed", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_fixed")

    @torch.no_grad()
    def test_losses_on_its_own_proposals(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        golden.holds_losses("loss_full", golden.method.loss(golden.batch), LOSSES)


class TestVariants:
    """Two models under one name."""

    def build(self, classes: tuple[str, ...], **settings: Any) -> CascadeMaskRCNN:
        backbone = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})
        narrow = {"width": 8, "box_width": 8, "mask_width": 8, "mask_depth": 1, **settings}
        return CascadeMaskRCNN(backbone=backbone, classes=classes, **narrow)

    def losses(self, method: CascadeMaskRCNN, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
        features = [torch.randn(2, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        for feature in features:
            feature.requires_grad_()
        proposals = [target.boxes + 1 for target in batch.targets]
        return features, method.roi_losses(features, proposals, batch.targets, batch.frames)

    def test_masks_of_every_stage_or_of_the_first(self, classes: tuple[str, ...], batch: Batch) -> None:
        _, ours = self.losses(self.build(classes), batch)
        _, theirs = self.losses(self.build(classes, variant="detectron2"), batch)
        assert [name for name in ours if name.endswith("mask")] == ["s0_mask", "s1_mask", "s2_mask"]
        assert [name for name in theirs if name.endswith("mask")] == ["s0_mask"]

    @pytest.mark.parametrize("stages", [1, 2, 3, 4])
    @pytest.mark.parametrize("variant", ["mmdet", "detectron2"])
    def test_one_to_four_stages(self, classes: tuple[str, ...], batch: Batch, variant: str, stages: int) -> None:
        method = self.build(classes, variant=variant, overlaps=(0.5, 0.6, 0.7, 0.75)[:stages])
        _, losses = self.losses(method, batch)
        assert {name[:2] for name in losses} == {f"s{stage}" for stage in range(stages)}
        with torch.no_grad():
            assert len(method.predict(batch)) == 2

    def test_resampled_regions_have_the_truth_among_them_again(self, classes: tuple[str, ...], batch: Batch) -> None:
        boxes = [target.boxes[:1] for target in batch.targets]
        ours, theirs = (self.build(classes, variant=name) for name in ("mmdet", "detectron2"))
        assert [len(rows) for rows in ours.sample(1, boxes, batch.targets).boxes] == [
            1 + len(target) for target in batch.targets
        ]
        assert [len(rows) for rows in theirs.sample(1, boxes, batch.targets).boxes] == [1, 1]
        assert [len(rows) for rows in theirs.sample(0, boxes, batch.targets).boxes] == [
            1 + len(target) for target in batch.targets
        ]

    @pytest.mark.parametrize("stages", [1, 2, 3])
    def test_stages_weigh_less_or_their_gradient_does(
        self, classes: tuple[str, ...], batch: Batch, stages: int
    ) -> None:
        """The first stage's class loss counts in full in both; of its gradient a share goes back to the features."""
        found = {}
        for variant in ("mmdet", "detectron2"):
            torch.manual_seed(0)
            method = self.build(classes, variant=variant, overlaps=(0.5, 0.6, 0.7)[:stages])
            torch.manual_seed(0)
            for head in (*method.cascade.heads, *method.mask_heads):
                for weight in head.parameters():
                    torch.nn.init.normal_(weight, std=0.1)
            torch.manual_seed(1)
            features, losses = self.losses(method, batch)
            losses["s0_class"].backward()
            found[variant] = losses["s0_class"].item(), features[0].grad
        assert found["mmdet"][0] == pytest.approx(found["detectron2"][0])
        torch.testing.assert_close(found["mmdet"][1] / stages, found["detectron2"][1])

    def test_detectron2s_anchors_learn_the_object_they_overlap_most(self, classes: tuple[str, ...]) -> None:
        matchers = {name: self.build(classes, variant=name).rpn.matcher for name in ("mmdet", "detectron2")}
        assert (matchers["mmdet"].takes, matchers["mmdet"].low_quality) == (True, 0.3)
        assert (matchers["detectron2"].takes, matchers["detectron2"].low_quality) == (False, 0.0)

    def test_an_unknown_variant(self, classes: tuple[str, ...]) -> None:
        with pytest.raises(ConfigError, match="expected mmdet or detectron2"):
            self.build(classes, variant="mmdetection")

    def test_refined_masks(self, classes: tuple[str, ...], batch: Batch) -> None:
        method = self.build(classes, refine=partial(PointRefinement, width=8, subdivisions=2))
        _, losses = self.losses(method, batch)
        assert [name for name in losses if name.endswith("point")] == ["s2_point"]
        features = [torch.randn(1, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        found = [Detected(batch.targets[0].boxes, batch.targets[0].labels, torch.ones(3))]
        assert method.masks(features, found).shape == (3, 112, 112)
        last = method.mask_heads[-1](method.pool(features, [found[0].boxes], 14))
        refined = method.refinement.refine(features[0], [found[0].boxes], last, found[0].labels, method.mask_kind)
        torch.testing.assert_close(method.masks(features, found), refined.sigmoid())
        plain = self.build(classes)
        for fine, coarse in zip(method.ceiling(batch), plain.ceiling(batch), strict=True):
            assert not torch.equal(fine.masks.dense(), coarse.masks.dense())
