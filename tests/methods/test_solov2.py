from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from goldens import Golden
from maskbench.methods.solov2 import Raw, SOLOv2
from maskbench.nn.backbone import Backbone
from maskbench.ops.masks import pairwise_iou, shrink
from maskbench.structures import Batch, Frame, Instances, Masks


def chain(found: re.Match[str]) -> str:
    """Of a level's chain MMDetection counts the convolutions, we the steps, with the up-sampling between them."""
    level, step, layer = int(found[1]), int(found[2]), ("conv", "gn").index(found[3])
    return f"mask_features.chains.{level}.{2 * step if level else 0}.{layer}"


HEADS = {
    r"^mask_head\.cls_convs\.(\d)\.conv": r"class_tower.\1.0",
    r"^mask_head\.cls_convs\.(\d)\.gn": r"class_tower.\1.1",
    r"^mask_head\.kernel_convs\.(\d)\.conv": r"kernel_tower.\1.0",
    r"^mask_head\.kernel_convs\.(\d)\.gn": r"kernel_tower.\1.1",
    r"^mask_head\.conv_cls": "classify",
    r"^mask_head\.conv_kernel": "kernel",
    r"^mask_head\.mask_feature_head\.convs_all_levels\.(\d)\.conv(\d)\.(conv|gn)": chain,
    r"^mask_head\.mask_feature_head\.conv_pred\.conv": "mask_features.output.0",
    r"^mask_head\.mask_feature_head\.conv_pred\.gn": "mask_features.output.1",
}
LOSSES = {"loss_mask": "mask", "loss_cls": "class"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solov2", SOLOv2, HEADS)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden:
    """Weights and batch of the goldens give what MMDetection computes from them."""

    def test_heads(self, golden: Golden, raw: Raw) -> None:
        golden.holds("raw/mask_feats", raw.features)
        for level, (logits, kernels) in enumerate(zip(raw.logits, raw.kernels, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            golden.holds(f"raw/kernel{level}", kernels)

    def test_cells_and_what_they_learn(self, golden: Golden) -> None:
        for image, target in enumerate(golden.batch.targets):
            cell, instance = golden.method.positives(target)
            wanted = shrink(target.masks.dense(), 4)
            start = 0
            for level, side in enumerate(golden.method.grids):
                here = (cell >= start) & (cell < start + side**2)
                order = cell[here].argsort()
                theirs = golden[f"train/img{image}/lvl{level}/pos_index_list"].sort()
                assert torch.equal(cell[here][order] - start, theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                assert torch.equal(wanted[instance[here][order]], masks[theirs.indices])
                labels = golden[f"train/img{image}/lvl{level}/labels"].flatten()
                assert torch.equal(target.labels[instance[here]], labels[cell[here] - start])
                start += side**2

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full")


@pytest.fixture
def method(classes: tuple[str, ...]) -> SOLOv2:
    backbone = Backbone("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8})
    return SOLOv2(
        backbone=backbone,
        classes=classes,
        width=8,
        head_width=8,
        head_depth=1,
        feature_width=8,
        kernel_channels=4,
        grids=(16, 14, 12, 8, 6),
        ranges=((1, 24), (16, 40), (28, 56), (44, 96), (80, 2048)),
    )


def levels(method: SOLOv2, flat: Tensor) -> list[Tensor]:
    """[B A D] of all cells → [B D S S] level by level."""
    parts = flat.transpose(1, 2).split([side**2 for side in method.grids], dim=2)
    return [part.unflatten(2, (side, side)) for part, side in zip(parts, method.grids, strict=True)]


def answer(method: SOLOv2, targets: Sequence[Instances], every_cell: bool = False) -> Raw:
    """The output that says the truth: feature n is object n, painted by the kernel of its first cell or of all."""
    cells = sum(side**2 for side in method.grids)
    logits, kernels = torch.full((len(targets), cells, 2), -20.0), torch.zeros(len(targets), cells, 4)
    features = torch.zeros(len(targets), 4, 32, 32)
    for row, target in enumerate(targets):
        cell, instance = method.positives(target)
        if not every_cell:
            instance, first = torch.arange(len(target)), [(instance == n).nonzero()[0] for n in range(len(target))]
            cell = cell[torch.cat(first)]
        logits[row, cell, target.labels[instance]] = 20
        kernels[row, cell, instance] = 20
        features[row, : len(target)] = torch.where(shrink(target.masks.dense(), 4), 1.0, -1.0)
    return Raw(levels(method, logits), levels(method, kernels), features)


def squares(*sides: int) -> Instances:
    """Squares around the middle of 128 × 128, of alternating class."""
    masks = torch.zeros(len(sides), 128, 128, dtype=torch.bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[64 - side // 2 : 64 + side // 2, 64 - side // 2 : 64 + side // 2] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.arange(len(sides)) % 2, torch.ones(len(sides)))


FRAME = Frame(1, photo=(128, 128), resized=(128, 128))


class TestPrediction:
    def test_the_truth_gives_what_can_be_drawn_of_it(
        self, method: SOLOv2, batch: Batch, truth: list[Instances]
    ) -> None:
        found = method.instances(answer(method, batch.targets), batch.frames)
        for instances, ceiling, true in zip(found, method.ceiling(batch), truth, strict=True):
            overlap, row = pairwise_iou(ceiling.masks.dense(), instances.masks.dense()).max(dim=1)
            assert overlap.min() > 0.999
            assert sorted(row.tolist()) == list(range(len(true)))
            assert torch.equal(instances.labels[row], ceiling.labels)
            torch.testing.assert_close(instances.scores, torch.ones(len(true)), atol=1e-4, rtol=0)
            assert pairwise_iou(ceiling.masks.dense(), true.masks.dense()).diagonal().min() > 0.9

    @pytest.mark.parametrize(("points_nms", "kept"), [(True, 1), (False, 2)])
    def test_objects_on_neighbouring_cells(self, method: SOLOv2, points_nms: bool, kept: int) -> None:
        masks = torch.zeros(2, 128, 128, dtype=torch.bool)
        masks[0, 40:64, 32:40] = masks[1, 40:64, 40:48] = True
        target = Instances(Masks(masks), Masks(masks).boxes(), torch.zeros(2, dtype=torch.long), torch.ones(2))
        raw = answer(method, [target])
        raw.logits[0][..., 5] -= 18  # the object further right, on column 5 of 16, is a little less certain
        method.points_nms = points_nms
        assert len(method.instances(raw, [FRAME])[0]) == kept

    def test_nothing_above_the_threshold(self, method: SOLOv2, batch: Batch) -> None:
        silent = answer(method, batch.targets)
        found = method.instances(silent._replace(logits=[-level.abs() for level in silent.logits]), batch.frames)
        assert [len(instances) for instances in found] == [0, 0]
        assert [instances.masks.size for instances in found] == [frame.photo for frame in batch.frames]

    @pytest.mark.parametrize(("cells", "kept"), [(8, 0), (9, 1)])
    def test_a_mask_is_larger_than_the_stride_of_its_level(self, method: SOLOv2, cells: int, kept: int) -> None:
        raw = answer(method, [squares(16)])  # learnt on the finest level, stride 8
        raw.features[0, 0] = -1
        raw.features[0, 0, 10, 10 : 10 + cells] = 1
        assert len(method.instances(raw, [FRAME])[0]) == kept

    def test_duplicates_decay_below_the_threshold(self, method: SOLOv2, batch: Batch) -> None:
        """A duplicate keeps e⁻² of its score: 0.135."""
        raw = answer(method, batch.targets, every_cell=True)
        method.decayed = 1.3
        assert min(len(instances) for instances in method.instances(raw, batch.frames)) > 3
        method.decayed = 1.4
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [3, 2]

    def test_candidates_and_instances_are_limited(self, method: SOLOv2, batch: Batch) -> None:
        raw = answer(method, batch.targets)
        method.point = replace(method.point, max_instances=2)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [2, 2]
        method.point = replace(method.point, candidates=1)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [1, 1]


class TestTraining:
    def losses(self, method: SOLOv2, raw: Raw, target: Instances, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        monkeypatch.setattr(method, "forward", lambda images: raw)
        batch = Batch(torch.zeros(1, 3, 128, 128, dtype=torch.uint8), (target,), (FRAME,))
        return {name: loss.item() for name, loss in method.loss(batch).items()}

    def test_the_truth_costs_nothing(self, method: SOLOv2, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        for target in batch.targets:
            losses = self.losses(method, answer(method, [target], every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_two_instances_on_one_cell_keep_both_masks_and_the_later_label(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Squares of 16 and 36 cells of the mask features share their eight grid cells, which all paint the first."""
        target = squares(16, 24)
        cell, instance = method.positives(target)
        assert torch.equal(cell[instance == 0], cell[instance == 1])
        assert len(cell) == 16

        raw = answer(method, [target[:1]], every_cell=True)
        losses = self.losses(method, raw, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 16 / (16 + 36)), abs=1e-3)  # over 8 cells, not 16 pairs
        later = answer(method, [squares(16, 16)[1:]], every_cell=True)
        assert losses["class"] > 1
        assert self.losses(method, later, target, monkeypatch)["class"] == pytest.approx(0, abs=1e-5)

    def test_without_objects_the_class_loss_alone_remains(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = answer(method, [squares(16)])
        losses = self.losses(method, raw, Instances.empty((128, 128)), monkeypatch)
        # One wrong logit of 20 costs (1 − α) · 20 and is divided by one more than no positive cell.
        assert losses == pytest.approx({"mask": 0, "class": 0.75 * 20}, rel=1e-4)

    def test_a_grid_and_a_range_for_each_level(self, method: SOLOv2) -> None:
        with pytest.raises(ValueError, match=r"5 levels, grids \[40, 36\]"):
            SOLOv2(backbone=method.backbone, classes=method.classes, grids=(40, 36))
