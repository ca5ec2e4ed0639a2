from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from goldens import RPN_LOSSES, Golden, region_golden
from maskbench.errors import ConfigError
from maskbench.methods.htc import HTC, Raw
from maskbench.nn.backbone import Backbone
from maskbench.nn.points import PointRefinement
from maskbench.ops.regions import Detected
from maskbench.structures import Batch

STAGE = {"loss_cls": "class", "loss_bbox": "box", "loss_mask": "mask"}
LOSSES = {
    **RPN_LOSSES,
    "loss_semantic_seg": "semantic",
    **{f"s{t}.{theirs}": f"s{t}_{ours}" for t in range(3) for theirs, ours in STAGE.items()},
}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return region_golden(shared / "goldens", "htc", HTC, semantic_classes=183)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden:
    """Weights, batch and proposals of the goldens give what MMDetection computes from them."""

    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw) -> None:
        method, proposals, labels = golden.method, golden.proposals(), golden["fixed/mask_labels"]
        golden.holds("fixed/sem_pred", raw.semantic.logits)
        golden.holds("fixed/sem_feat", raw.semantic.features)
        boxes = method.pool(raw.features, raw.semantic, proposals, 7)
        masks = method.pool(raw.features, raw.semantic, proposals, 14)
        for stage in range(3):
            logits, deltas = method.cascade(stage, boxes)
            golden.holds(f"fixed/s{stage}.cls_score", logits)
            golden.holds(f"fixed/s{stage}.bbox_pred", deltas[:, 0])
            golden.holds(f"fixed/s{stage}.mask_pred", method.mask_kind.margin(method.mask_logits(stage, masks), labels))

    def test_samples(self, golden: Golden) -> None:
        method = golden.method
        golden.holds_regions(method.cascade.sample(0, golden.proposals(), golden.batch.targets, method.sampler))

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        method, frames = golden.method, golden.batch.frames
        for image, found in enumerate(method.detect(raw.features, raw.semantic, golden.proposals(), frames)):
            golden.holds_instances(f"pred_fixed/{image}", found)
        for image, found in enumerate(method.instances(raw, frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw) -> None:
        method, batch = golden.method, golden.batch
        losses = method.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames)
        losses["semantic"] = method.semantic_loss(raw.semantic.logits, batch)
        proposals = golden.proposals()
        losses |= method.roi_losses(raw.features, raw.semantic, proposals, batch.targets, batch.frames)
        golden.holds_losses("loss_fixed", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_fixed")

    @pytest.mark.slow  # the same losses as above, on a thousand proposals of its own
    @torch.no_grad()
    def test_losses_on_its_own_proposals(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        golden.holds_losses("loss_full", golden.method.loss(golden.batch), LOSSES)


class TestSwitches:
    """Each of the paper's three ideas can be left out."""

    def build(self, classes: tuple[str, ...], **settings: Any) -> HTC:
        torch.manual_seed(0)
        backbone = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})
        return HTC(backbone=backbone, classes=classes, width=8, box_width=8, mask_depth=1, **settings).eval()

    @pytest.mark.parametrize("interleaved", [True, False])
    @pytest.mark.parametrize("mask_flow", [True, False])
    @pytest.mark.parametrize("semantic", [True, False])
    def test_all_of_them(
        self, classes: tuple[str, ...], batch: Batch, interleaved: bool, mask_flow: bool, semantic: bool
    ) -> None:
        method = self.build(classes, interleaved=interleaved, mask_flow=mask_flow, semantic=semantic)
        losses = method.loss(batch)
        torch.stack(list(losses.values())).sum().backward()
        assert ("semantic" in losses) is semantic
        assert all(weight.grad is not None for weight in method.parameters())
        with torch.no_grad():
            assert len(method.predict(batch)) == 2

    def test_interleaved_masks_learn_on_refined_boxes(self, classes: tuple[str, ...], batch: Batch) -> None:
        """A box head that moves every box far away leaves a mask head nothing but the truth to learn on."""
        counted = {}
        for interleaved in (True, False):
            method = self.build(classes, interleaved=interleaved, semantic=False, overlaps=(0.5,))
            torch.nn.init.zeros_(method.cascade.heads[0].regress.weight)
            torch.nn.init.constant_(method.cascade.heads[0].regress.bias, 30.0)
            seen: list[int] = []
            look = method.mask_heads[0].look
            method.mask_heads[0].look = lambda pooled, look=look, seen=seen: (seen.append(len(pooled)), look(pooled))[1]
            features = method.fpn(method.backbone(method.prepare(batch)))
            proposals = [target.boxes + 1 for target in batch.targets]
            method.roi_losses(features, None, proposals, batch.targets, batch.frames)
            counted[interleaved] = seen[0]
        objects = sum(map(len, batch.targets))
        assert counted == {True: objects, False: 2 * objects}

    def test_a_mask_head_is_given_what_the_one_before_has_seen(self, classes: tuple[str, ...]) -> None:
        pooled = torch.randn(2, 8, 14, 14)
        method, alone = self.build(classes), self.build(classes, mask_flow=False)
        alone.load_state_dict({name: value for name, value in method.state_dict().items() if "flow" not in name})
        assert torch.equal(method.mask_logits(0, pooled), alone.mask_logits(0, pooled))
        assert not torch.allclose(method.mask_logits(1, pooled), alone.mask_logits(1, pooled))
        for conv in method.flow:  # which then hand on nothing
            torch.nn.init.zeros_(conv.weight)
        torch.testing.assert_close(method.mask_logits(2, pooled), alone.mask_logits(2, pooled))

    def test_without_maps_the_branch_learns_the_union_of_the_masks(
        self, classes: tuple[str, ...], batch: Batch, without_objects: Batch
    ) -> None:
        method = self.build(classes)
        for images, present in ((batch, {0, 1, 2}), (without_objects, {2})):
            maps = torch.stack([target.masks.dense().any(dim=0) for target in images.targets])
            wanted = method._maps(images, stride=1)
            assert set(wanted.unique().tolist()) == {*present, 255}
            assert torch.equal(wanted < 2, maps)
            assert (wanted[1, images.frames[1].resized[0] :] == 255).all()
            assert torch.equal(method._maps(images, stride=8), wanted[:, ::8, ::8])
            drawn = torch.where(wanted == 255, 0, wanted)[:, ::8, ::8]
            logits = 20 * torch.nn.functional.one_hot(drawn, 3).permute(0, 3, 1, 2).float()
            assert method.semantic_loss(logits, images).item() == pytest.approx(0, abs=1e-4)

    def test_cells_that_nobody_knows_count_as_cells(self, classes: tuple[str, ...], batch: Batch) -> None:
        method = self.build(classes, semantic_classes=5, semantic_weight=1.0)
        unknown = torch.full((2, 128, 128), 255, dtype=torch.uint8)
        unknown[:, :64] = 3
        loss = method.semantic_loss(torch.zeros(2, 5, 16, 16), replace(batch, semantic=unknown))
        assert loss.item() == pytest.approx(math.log(5) / 2)

    def test_maps_and_classes_that_do_not_fit_are_named(self, classes: tuple[str, ...], batch: Batch) -> None:
        maps = torch.full((2, 128, 128), 7, dtype=torch.uint8)
        for classes_, semantic, said in (
            (5, None, "has no semantic maps"),
            (None, maps, "semantic_classes is null"),
            (5, maps, "a semantic map has class 7.* at least 8"),
        ):
            with pytest.raises(ConfigError, match=said):
                self.build(classes, semantic_classes=classes_).loss(replace(batch, semantic=semantic))

    def test_masks_of_the_last_stage_or_of_all(self, classes: tuple[str, ...], batch: Batch) -> None:
        last, every = (self.build(classes, mask_stages=stages) for stages in ("last", "all"))
        features = [torch.randn(1, 8, 128 // stride, 128 // stride) for stride in last.fpn.strides]
        found = [Detected(batch.targets[0].boxes, batch.targets[0].labels, torch.ones(3))]
        pooled = last.pool(features, None, [found[0].boxes], 14)
        maps = [last.mask_kind.margin(last.mask_logits(stage, pooled), found[0].labels).sigmoid() for stage in range(3)]
        torch.testing.assert_close(last.masks(features, None, found), maps[2])
        torch.testing.assert_close(every.masks(features, None, found), torch.stack(maps).mean(dim=0))
        with pytest.raises(ConfigError, match="last or all"):
            self.build(classes, mask_stages="first")

    def test_refined_masks(self, classes: tuple[str, ...], batch: Batch) -> None:
        method = self.build(classes, refine=partial(PointRefinement, width=8, subdivisions=2))
        losses = method.loss(batch)
        assert [name for name in losses if name.endswith("point")] == ["s2_point"]
        for fine, coarse in zip(method.ceiling(batch), self.build(classes).ceiling(batch), strict=True):
            assert not torch.equal(fine.masks.dense(), coarse.masks.dense())
        features = [torch.randn(1, 8, 128 // stride, 128 // stride) for stride in method.fpn.strides]
        found = [Detected(batch.targets[0].boxes, batch.targets[0].labels, torch.ones(3))]
        assert method.masks(features, None, found).shape == (3, 112, 112)
