from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goldens import Golden, resampled_twice
from maskbench.errors import ConfigError
from maskbench.methods import solo
from maskbench.methods.solo import SOLO, Raw
from maskbench.ops.grid import cell_scores, resized
from maskbench.ops.masks import pairwise_iou, shrink
from maskbench.structures import Batch, Instances
from squares import FRAME, GRIDS, losses_of, neighbours, squares, thin_backbone

LOSSES = {"loss_mask": "mask", "loss_cls": "class"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solo", SOLO)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden:
    """Weights and batch of the goldens give what MMDetection computes from them."""

    @torch.no_grad()
    def test_features(self, golden: Golden) -> None:
        images = golden.method.prepare(golden.batch)
        golden.holds("input", images)
        features = golden.method.backbone(images)
        for name, maps in (("backbone", features), ("fpn", golden.method.fpn(features))):
            for level, level_map in enumerate(maps):
                golden.holds(f"{name}{level}", level_map)

    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw) -> None:
        """Of all S² cells of a level, which no other test asks for."""
        size = tuple(2 * side for side in raw.features[0].shape[2:])
        for level, (logits, features) in enumerate(zip(raw.logits, raw.features, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            cells = torch.arange(golden.method.grids.sides[level] ** 2)
            masks = [golden.method.mask_logits(level, cells, image) for image in features]
            golden.holds(f"raw/mask{level}", torch.stack(masks))
            golden.holds(f"act/mask{level}", torch.stack([resized(mask.sigmoid(), size) for mask in masks]))

    def test_scores_of_cells(self, golden: Golden, raw: Raw) -> None:
        scores = cell_scores(raw.logits, points=True).split([side**2 for side in golden.method.grids.sides], dim=1)
        for level, (side, found) in enumerate(zip(golden.method.grids.sides, scores, strict=True)):
            golden.holds(f"act/cls{level}", found.transpose(1, 2).unflatten(2, (side, side)))

    def test_cells_and_what_they_learn(self, golden: Golden) -> None:
        grids = golden.method.grids
        for image, target in enumerate(golden.batch.targets):
            owners = grids.owners(grids.claims(target), target)
            labels = grids.labels(owners, target, background=80)
            for level, (rows, cell) in enumerate(grids.split(owners.cell)):
                order = cell.argsort()
                theirs = golden[f"train/img{image}/lvl{level}/pos"].sort()
                assert torch.equal(cell[order], theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                wanted = shrink(target.masks.dense(), golden.method.strides[level] // 2)
                assert torch.equal(wanted[owners.instance[rows][order]], masks[theirs.indices])
                here = slice(*grids.starts[level : level + 2])
                assert torch.equal(labels[here], golden[f"train/img{image}/lvl{level}/labels"].flatten())

    @torch.no_grad()
    def test_suppression_and_detections(
        self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(solo, "to_photo", resampled_twice)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found, overlap=0.99)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full")


@pytest.fixture
def method(classes: tuple[str, ...]) -> SOLO:
    """Its kernels are zero, so that `answer` can choose what they paint."""
    made = build(classes)
    for weight in made.masks.parameters():
        nn.init.zeros_(weight)
    return made


def build(classes: tuple[str, ...], **settings: Any) -> SOLO:
    return SOLO(backbone=thin_backbone(), classes=classes, width=8, head_width=8, head_depth=1, **{**GRIDS, **settings})


def answer(method: SOLO, target: Instances, every_cell: bool = False) -> Raw:
    """The output that says the truth about one image: of each level's features channel n is the outline of object n.

    The kernel of an object's cells chooses its channel and is set in `method`; the class of the first of them is
    certain, or of all.
    """
    grids = method.grids
    claims = grids.claims(target)
    certain = torch.full((grids.starts[-1], 2), -20.0)
    for instance, label in enumerate(target.labels.tolist()):
        cells = claims.cell[claims.instance == instance]
        certain[cells if every_cell else cells[:1], label] = 20
    logits, features = [], []
    for level, (rows, cell) in enumerate(grids.split(claims.cell)):
        side, stride = grids.sides[level], method.strides[level]
        here = slice(*grids.starts[level : level + 2])
        logits.append(certain[here].T.reshape(1, 2, side, side))
        method.masks[level].weight.data[cell, claims.instance[rows]] = 40
        share = F.avg_pool2d(target.masks.dense().float(), stride)
        features.append(F.pad(2 * share - 1, (0, 0, 0, 0, 0, 8 - len(target)))[None])
    return Raw(logits, features)


class TestNetwork:
    @pytest.mark.parametrize("coordinates", [True, False])
    def test_only_coordinates_tell_a_mask_tower_where_it_is(self, classes: tuple[str, ...], coordinates: bool) -> None:
        """Of features that are the same everywhere a tower without them makes the same inside, borders apart."""
        made = build(classes, coordinates=coordinates)
        made.fpn.forward = lambda features: [torch.ones(1, 8, side, side) for side in (64, 32, 16, 8, 4)]
        inside = made(torch.zeros(1, 3, 256, 256)).features[0][:, :, 4:-4, 4:-4]
        assert torch.allclose(inside, inside[:, :, :1, :1]) is not coordinates

    def test_masks_are_the_paper_s_up_sampled_features_convolved(self, classes: tuple[str, ...]) -> None:
        made = build(classes)
        nn.init.normal_(made.masks[1].bias)
        features = torch.randn(8, 5, 7)
        up = F.interpolate(features[None], scale_factor=2, mode="bilinear")
        found = made.mask_logits(1, torch.tensor([5, 0, 5]), features)
        torch.testing.assert_close(found, made.masks[1](up)[0, [5, 0, 5]])


class TestPrediction:
    def test_the_truth_gives_what_can_be_drawn_of_it(self, method: SOLO, batch: Batch, truth: list[Instances]) -> None:
        for single, ceiling, true in zip(batch, method.ceiling(batch), truth, strict=True):
            (found,) = method.instances(answer(method, single.targets[0]), single.frames)
            overlap, row = pairwise_iou(ceiling.masks.dense(), found.masks.dense()).max(dim=1)
            assert overlap.min() > 0.7
            assert sorted(row.tolist()) == list(range(len(true)))
            assert torch.equal(found.labels[row], ceiling.labels)
            assert found.scores.min() > 0.85

    def test_nothing_above_the_threshold(self, method: SOLO, batch: Batch) -> None:
        single = next(iter(batch))
        silent = answer(method, single.targets[0])
        (found,) = method.instances(silent._replace(logits=[-level.abs() for level in silent.logits]), single.frames)
        assert (len(found), found.masks.size) == (0, single.frames[0].photo)

    def test_neighbouring_cells_are_duplicates_or_not(self, method: SOLO) -> None:
        raw = answer(method, neighbours())
        raw.logits[0][..., 5] -= 18  # the object further right is a little less certain
        assert len(method.instances(raw, [FRAME])[0]) == 1
        method.points_nms = False
        assert len(method.instances(raw, [FRAME])[0]) == 2

    @pytest.mark.parametrize(("suppression", "kept"), [("matrix", 2), ("mask", 1)])
    def test_a_duplicate_decays_or_goes(self, method: SOLO, suppression: str, kept: int) -> None:
        """A certain object of two levels, so of two cells: Matrix NMS leaves the second more than it must have."""
        raw = answer(method, squares(20), every_cell=True)
        method.select = replace(method.select, suppression=suppression)
        method.point = replace(method.point, max_instances=2)
        assert len(method.instances(raw, [FRAME])[0]) == kept

    @pytest.mark.parametrize(("side", "level"), [(16, 0), (32, 1), (48, 2), (64, 3)])
    def test_levels_of_other_strides_meet_at_stride_4(self, method: SOLO, side: int, level: int) -> None:
        """A square is found where it is, though its features have cells of up to 32 pixels."""
        target = squares(side)
        cells = [cell for _, cell in method.grids.split(method.grids.claims(target).cell)]
        assert len(cells[level])
        assert not any(len(other) for other in cells[level + 2 :])
        raw = answer(method, target)
        silent = [torch.full_like(logits, -20) for logits in raw.logits]
        silent[level].flatten(2)[:, 0, cells[level][0]] = 20
        (found,) = method.instances(raw._replace(logits=silent), [FRAME])
        assert pairwise_iou(found.masks.dense(), target.masks.dense()).item() > 0.85


class TestTraining:
    def test_a_mask_costs_its_dice_at_half_the_stride_of_its_level(
        self, method: SOLO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A square of 32 pixels, which levels 1 and 2 learn, and whose masks are painted everywhere.

        At stride 4 it has 64 of 1,024 cells, at stride 8 it has 16 of 256: as large a share.
        """
        target = squares(32)
        raw = answer(method, target, every_cell=True)
        for level in method.masks:
            level.weight.data.zero_()
            level.bias.data.fill_(20)
        losses = losses_of(method, raw, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 64 / (64 + 1024)), rel=1e-4)
        assert losses["class"] == pytest.approx(0, abs=1e-5)

    def test_of_two_instances_on_one_cell_the_last_or_the_smallest_is_learnt(
        self, method: SOLO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = squares(24, 20)  # on the same cells of the first two levels, of classes 0 and 1
        order = torch.tensor([1, 0])
        for shared, target, learnt in (
            ("reference", both, both[1:]),
            ("reference", both[order], both[:1]),
            ("smallest", both, both[1:]),
            ("smallest", both[order], both[1:]),
        ):
            for weight in method.masks.parameters():
                weight.data.zero_()
            method.grids = replace(method.grids, shared=shared)
            losses = losses_of(method, answer(method, learnt, every_cell=True), target, monkeypatch)
            alone = losses_of(method, answer(method, learnt, every_cell=True), learnt, monkeypatch)
            assert losses == pytest.approx(alone)

    def test_without_objects_the_class_loss_alone_remains(self, method: SOLO, monkeypatch: pytest.MonkeyPatch) -> None:
        losses = losses_of(method, answer(method, squares(16)), Instances.empty((128, 128)), monkeypatch)
        # One wrong logit of 20 costs (1 − α) · 20 and is divided by one more than no positive cell.
        assert losses == pytest.approx({"mask": 0, "class": 0.75 * 20}, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": (40, 36)}, r"5 levels, grids \[40, 36\]"),
        ({"shared_cells": "first"}, "shared_cells='first': expected one of reference, smallest"),
        ({"suppression": "soft"}, "suppression='soft': expected one of matrix, mask"),
    ],
)
def test_settings_that_make_no_sense(classes: tuple[str, ...], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(classes, **settings)


def test_masks_and_classes_start_improbable(classes: tuple[str, ...]) -> None:
    """As released: at one in a hundred, or what is background everywhere would outweigh all objects."""
    method = build(classes)
    for layer in (*method.masks, method.classify):
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full_like(layer.bias, 0.01))
