from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goldens import Golden
from maskbench.errors import ConfigError
from maskbench.methods.solov2 import Raw, SOLOv2
from maskbench.ops.masks import pairwise_iou, shrink
from maskbench.structures import Batch, Instances
from squares import FRAME, GRIDS, losses_of, neighbours, settings_of, squares, thin_backbone

LOSSES = {"loss_mask": "mask", "loss_cls": "class"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solov2", SOLOv2)


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
        grids = golden.method.grids
        for image, target in enumerate(golden.batch.targets):
            claims = grids.claims(target)
            wanted = shrink(target.masks.dense(), 4)
            labels = grids.labels(grids.owners(claims, target), target, background=80)
            for level, (rows, cell) in enumerate(grids.split(claims.cell)):
                order = cell.argsort()
                theirs = golden[f"train/img{image}/lvl{level}/pos_index_list"].sort()
                assert torch.equal(cell[order], theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                assert torch.equal(wanted[claims.instance[rows][order]], masks[theirs.indices])
                here = slice(*grids.starts[level : level + 2])
                assert torch.equal(labels[here], golden[f"train/img{image}/lvl{level}/labels"].flatten())

    @torch.no_grad()
    def test_suppression_and_detections(self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]]) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full")


def build(classes: tuple[str, ...], **settings: Any) -> SOLOv2:
    narrow = {"width": 8, "head_width": 8, "head_depth": 1, "feature_width": 8, "kernel_channels": 4, **GRIDS}
    return SOLOv2(backbone=thin_backbone(), classes=classes, **{**narrow, **settings})


@pytest.fixture
def method(classes: tuple[str, ...]) -> SOLOv2:
    return build(classes)


def levels(method: SOLOv2, flat: Tensor) -> list[Tensor]:
    """[B A D] of all cells → [B D S S] level by level."""
    parts = flat.transpose(1, 2).split([side**2 for side in method.grids.sides], dim=2)
    return [part.unflatten(2, (side, side)) for part, side in zip(parts, method.grids.sides, strict=True)]


def answer(method: SOLOv2, targets: Sequence[Instances], every_cell: bool = False) -> Raw:
    """The output that says the truth: feature n is object n, painted by the kernel of its first cell or of all."""
    cells = method.grids.starts[-1]
    logits, kernels = torch.full((len(targets), cells, 2), -20.0), torch.zeros(len(targets), cells, 4)
    features = torch.zeros(len(targets), 4, 32, 32)
    for row, target in enumerate(targets):
        cell, instance = method.grids.claims(target)
        if not every_cell:
            instance, first = torch.arange(len(target)), [(instance == n).nonzero()[0] for n in range(len(target))]
            cell = cell[torch.cat(first)]
        logits[row, cell, target.labels[instance]] = 20
        kernels[row, cell, instance] = 20
        features[row, : len(target)] = torch.where(shrink(target.masks.dense(), 4), 1.0, -1.0)
    return Raw(levels(method, logits), levels(method, kernels), features)


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
        raw = answer(method, [neighbours()])
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
        method.select = replace(method.select, decayed=1.3)
        assert min(len(instances) for instances in method.instances(raw, batch.frames)) > 3
        method.select = replace(method.select, decayed=1.4)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [3, 2]

    def test_candidates_and_instances_are_limited(self, method: SOLOv2, batch: Batch) -> None:
        raw = answer(method, batch.targets)
        method.point = replace(method.point, max_instances=2)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [2, 2]
        method.point = replace(method.point, candidates=1)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [1, 1]


class TestTraining:
    def test_the_truth_costs_nothing(self, method: SOLOv2, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        for target in batch.targets:
            losses = losses_of(method, answer(method, [target], every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_two_instances_on_one_cell_keep_both_masks_and_the_later_label(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Squares of 16 and 36 cells of the mask features share their eight grid cells, which all paint the first."""
        target = squares(16, 24)
        cell, instance = method.grids.claims(target)
        assert torch.equal(cell[instance == 0], cell[instance == 1])
        assert len(cell) == 16

        raw = answer(method, [target[:1]], every_cell=True)
        losses = losses_of(method, raw, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 16 / (16 + 36)), abs=1e-3)  # over 8 cells, not 16 pairs
        later = answer(method, [squares(16, 16)[1:]], every_cell=True)
        assert losses["class"] > 1
        assert losses_of(method, later, target, monkeypatch)["class"] == pytest.approx(0, abs=1e-5)

    def test_without_objects_the_class_loss_alone_remains(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = answer(method, [squares(16)])
        losses = losses_of(method, raw, Instances.empty((128, 128)), monkeypatch)
        # One wrong logit of 20 costs (1 − α) · 20 and is divided by one more than no positive cell.
        assert losses == pytest.approx({"mask": 0, "class": 0.75 * 20}, rel=1e-4)

    def test_two_instances_on_one_cell_where_the_smallest_has_it(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Painting the smaller of two squares on their common cells costs nothing, in either order."""
        method.grids = replace(method.grids, shared="smallest")
        both = squares(16, 24)
        raw = answer(method, [both[:1]], every_cell=True)
        for order in ([0, 1], [1, 0]):
            losses = losses_of(method, raw, both[torch.tensor(order)], monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)


class TestVariants:
    def test_only_coordinates_tell_a_kernel_where_it_is(self, classes: tuple[str, ...]) -> None:
        """Of features that are the same everywhere a network without them makes the same inside, borders apart."""
        for coordinates in (True, False):
            made = build(classes, coordinates=coordinates)
            made.fpn.forward = lambda features: [torch.ones(1, 8, side, side) for side in (128, 64, 32, 16, 8)]
            raw = made(torch.zeros(1, 3, 512, 512))
            for maps, border in ((raw.kernels[0], 3), (raw.features, 24)):
                inside = maps[:, :, border:-border, border:-border]
                assert torch.allclose(inside, inside[:, :, :1, :1], rtol=1e-4) is not coordinates

    @pytest.mark.parametrize(("suppression", "kept"), [("matrix", 2), ("mask", 1)])
    def test_a_duplicate_decays_or_goes(self, classes: tuple[str, ...], suppression: str, kept: int) -> None:
        """A certain object of two levels, so of two cells: Matrix NMS leaves the second more than it must have."""
        made = build(classes, suppression=suppression)
        made.point = replace(made.point, max_instances=2)
        raw = answer(made, [squares(20)], every_cell=True)
        assert len(made.instances(raw, [FRAME])[0]) == kept

    def test_the_light_variant(self, root: Path, classes: tuple[str, ...], batch: Batch) -> None:
        """Two convolutions of 256, and kernels and mask features of 128 channels."""
        made = SOLOv2(backbone=thin_backbone(), classes=classes, **settings_of(root, "solov2_light"))
        for channels, tower in ((256, made.class_tower), (258, made.kernel_tower)):
            shapes = [tuple(block[0].weight.shape) for block in tower]
            assert shapes == [(256, channels, 3, 3), (256, 256, 3, 3)]
        assert tuple(made.kernel.weight.shape) == (128, 256, 3, 3)
        assert tuple(made.mask_features.output[0].weight.shape) == (128, 128, 1, 1)
        # For a short side of 448 where the paper's are for 800.
        paper = SOLOv2(backbone=thin_backbone(), classes=classes).grids.ranges
        assert [high / 56 for _, high in made.grids.ranges[:-1]] == [high / 96 for _, high in paper[:-1]]
        assert torch.isfinite(torch.stack(list(made.loss(batch).values()))).all()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"grids": (40, 36)}, r"5 levels, grids \[40, 36\]"),
            ({"shared_cells": "first"}, "shared_cells='first': expected one of reference, smallest"),
            ({"suppression": "soft"}, "suppression='soft': expected one of matrix, mask"),
        ],
    )
    def test_settings_that_make_no_sense(
        self, classes: tuple[str, ...], settings: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            build(classes, **settings)
