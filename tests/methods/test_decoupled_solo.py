from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from goldens import Golden, resampled_twice
from maskbench.errors import ConfigError
from maskbench.methods import decoupled_solo
from maskbench.methods.decoupled_solo import DecoupledSOLO, Raw, product
from maskbench.ops.grid import cell_scores, resized
from maskbench.ops.masks import pairwise_iou, shrink
from maskbench.structures import Batch, Instances
from squares import FRAME, GRIDS, losses_of, neighbours, settings_of, squares, thin_backbone

LOSSES = {"loss_mask": "mask", "loss_cls": "class"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "decoupled-solo", DecoupledSOLO)


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
        size = raw.columns[0].shape[2:]
        for level, (logits, columns, rows) in enumerate(zip(*raw, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            for axis, maps in (("x", columns), ("y", rows)):
                golden.holds(f"raw/mask_{axis}{level}", maps)
                golden.holds(f"act/mask_{axis}{level}", torch.stack([resized(one.sigmoid(), size) for one in maps]))

    @torch.no_grad()
    def test_scores_of_cells(self, golden: Golden, raw: Raw) -> None:
        scores = cell_scores(raw.logits, points=True).split([side**2 for side in golden.method.grids.sides], dim=1)
        for level, (side, found) in enumerate(zip(golden.method.grids.sides, scores, strict=True)):
            golden.holds(f"act/cls{level}", found.transpose(1, 2).unflatten(2, (side, side)))

    def test_cells_and_what_they_learn(self, golden: Golden) -> None:
        grids = golden.method.grids
        for image, target in enumerate(golden.batch.targets):
            owners = grids.owners(grids.claims(target), target)
            labels = grids.labels(owners, target, background=80)
            for level, (here, cell) in enumerate(grids.split(owners.cell)):
                row, column = golden[f"train/img{image}/lvl{level}/pos"].unbind(dim=1)
                theirs = (row * grids.sides[level] + column).sort()
                order = cell.argsort()
                assert torch.equal(cell[order], theirs.values)
                masks = torch.from_numpy(golden.arrays.mask_targets(image, level))
                wanted = shrink(target.masks.dense(), golden.method.strides[level] // 2)
                assert torch.equal(wanted[owners.instance[here][order]], masks[theirs.indices])
                part = slice(*grids.starts[level : level + 2])
                assert torch.equal(labels[part], golden[f"train/img{image}/lvl{level}/labels"].flatten())

    @torch.no_grad()
    def test_suppression_and_detections(
        self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoupled_solo, "to_photo", resampled_twice)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found, overlap=0.99)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(golden.method, "forward", lambda images: raw)
        losses = golden.method.loss(golden.batch)
        golden.holds_losses("loss_full", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_full")


def build(classes: tuple[str, ...], **settings: Any) -> DecoupledSOLO:
    narrow = {"width": 8, "head_width": 8, "head_depth": 1, **GRIDS}
    return DecoupledSOLO(backbone=thin_backbone(), classes=classes, **{**narrow, **settings})


@pytest.fixture
def method(classes: tuple[str, ...]) -> DecoupledSOLO:
    return build(classes)


def answer(method: DecoupledSOLO, target: Instances, every_cell: bool = False) -> Raw:
    """The output that says the truth about one image.

    The map of a column shows all objects that have a cell in it, and so does that of a row: objects that share neither
    are told apart. The class of the first cell of an object is certain, or of all.
    """
    grids = method.grids
    claims = grids.claims(target)
    certain = torch.full((grids.starts[-1], 2), -20.0)
    for instance, label in enumerate(target.labels.tolist()):
        cells = claims.cell[claims.instance == instance]
        certain[cells if every_cell else cells[:1], label] = 20
    raw = Raw([], [], [])
    for level, (here, cell) in enumerate(grids.split(claims.cell)):
        side = grids.sides[level]
        part = slice(*grids.starts[level : level + 2])
        raw.logits.append(certain[part].T.reshape(1, 2, side, side))
        drawn = shrink(target.masks.dense(), method.strides[level] // 2)
        for maps, channel in ((raw.columns, cell % side), (raw.rows, cell // side)):
            shown = torch.zeros(side, *drawn.shape[1:], dtype=torch.bool)
            for number, instance in zip(channel.tolist(), claims.instance[here].tolist(), strict=True):
                shown[number] |= drawn[instance]
            maps.append(torch.where(shown, 20.0, -20.0)[None])
    return raw


class TestNetwork:
    def moved(self, made: DecoupledSOLO) -> dict[str, bool]:
        """Whether the maps change along x and along y, borders apart, where features are the same everywhere."""
        made.fpn.forward = lambda features: [torch.ones(1, 8, side, side) for side in (64, 32, 16, 8, 4)]
        raw = made(torch.zeros(1, 3, 256, 256))
        found = {}
        for name, (maps, *_) in (("columns", raw.columns), ("rows", raw.rows)):
            inside = maps[:, :, 8:-8, 8:-8]
            found[f"{name} along x"] = not torch.allclose(inside, inside[:, :, :, :1], rtol=1e-4)
            found[f"{name} along y"] = not torch.allclose(inside, inside[:, :, :1], rtol=1e-4)
        return found

    def test_each_tower_knows_its_own_axis(self, classes: tuple[str, ...]) -> None:
        assert self.moved(build(classes)) == {
            "columns along x": True,
            "columns along y": False,
            "rows along x": False,
            "rows along y": True,
        }

    def test_a_shared_tower_knows_both(self, classes: tuple[str, ...]) -> None:
        made = build(classes, shared_tower=True)
        assert len(made.mask_towers) == 1
        assert all(self.moved(made).values())

    @pytest.mark.parametrize("shared_tower", [True, False])
    def test_without_coordinates_nothing_tells_where_it_is(self, classes: tuple[str, ...], shared_tower: bool) -> None:
        made = build(classes, coordinates=False, shared_tower=shared_tower)
        assert not any(self.moved(made).values())


def test_the_light_variant(root: Path, classes: tuple[str, ...], batch: Batch) -> None:
    """Four convolutions of 256 with both coordinates, and then a column's and a row's maps."""
    made = DecoupledSOLO(backbone=thin_backbone(), classes=classes, **settings_of(root, "decoupled_solo_light"))
    assert [[tuple(block[0].weight.shape) for block in tower] for tower in made.mask_towers] == [
        [(256, 258, 3, 3), *[(256, 256, 3, 3)] * 3]
    ]
    assert len(made.class_tower) == 4
    assert [conv.out_channels for conv in (*made.columns, *made.rows)] == 2 * [40, 36, 24, 16, 12]
    # For a short side of 512 where the paper's are for 800, so two thirds of its sizes.
    paper = DecoupledSOLO(backbone=thin_backbone(), classes=classes).grids.ranges
    assert [1.5 * high for _, high in made.grids.ranges[:-1]] == [high for _, high in paper[:-1]]
    losses = made.loss(batch)
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


class TestPrediction:
    def test_a_cell_is_its_column_and_its_row(self) -> None:
        columns, rows = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
        found = product(columns, rows, torch.tensor([5, 6]))  # row 1 column 2, row 2 column 0
        torch.testing.assert_close(found, torch.stack([columns[2] * rows[1], columns[0] * rows[2]]))
        assert product(columns, rows, torch.zeros(0, dtype=torch.long)).shape == (0, 2, 4)

    def test_the_truth_gives_what_can_be_drawn_of_it(
        self, method: DecoupledSOLO, batch: Batch, truth: list[Instances]
    ) -> None:
        for single, ceiling, true in zip(batch, method.ceiling(batch), truth, strict=True):
            (found,) = method.instances(answer(method, single.targets[0]), single.frames)
            overlap, row = pairwise_iou(ceiling.masks.dense(), found.masks.dense()).max(dim=1)
            assert overlap.min() > 0.8  # a product of two probabilities of one half is a quarter: outlines shrink
            assert sorted(row.tolist()) == list(range(len(true)))
            assert torch.equal(found.labels[row], ceiling.labels)
            torch.testing.assert_close(found.scores, torch.ones(len(true)), atol=0.2, rtol=0)

    def test_nothing_above_the_threshold(self, method: DecoupledSOLO, batch: Batch) -> None:
        single = next(iter(batch))
        silent = answer(method, single.targets[0])
        (found,) = method.instances(silent._replace(logits=[-level.abs() for level in silent.logits]), single.frames)
        assert (len(found), found.masks.size) == (0, single.frames[0].photo)

    def test_neighbouring_cells_are_duplicates_or_not(self, method: DecoupledSOLO) -> None:
        raw = answer(method, neighbours())
        raw.logits[0][..., 5] -= 18  # the object further right is a little less certain
        assert len(method.instances(raw, [FRAME])[0]) == 1
        method.points_nms = False
        assert len(method.instances(raw, [FRAME])[0]) == 2

    @pytest.mark.parametrize(("suppression", "kept"), [("matrix", 2), ("mask", 1)])
    def test_a_duplicate_decays_or_goes(self, classes: tuple[str, ...], suppression: str, kept: int) -> None:
        """A certain object of two levels, so of two cells: Matrix NMS leaves the second more than it must have."""
        method = build(classes, suppression=suppression)
        method.point = replace(method.point, max_instances=2)
        raw = answer(method, squares(20), every_cell=True)
        assert len(method.instances(raw, [FRAME])[0]) == kept


class TestTraining:
    def test_the_truth_costs_nothing(
        self, method: DecoupledSOLO, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for target in batch.targets:
            losses = losses_of(method, answer(method, target, every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_a_mask_costs_its_dice_at_half_the_stride_of_its_level(
        self, method: DecoupledSOLO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A square of 32 pixels, which levels 1 and 2 learn, painted everywhere with a probability of ½ · ½.

        At stride 4 it has 64 of 1,024 cells, at stride 8 it has 16 of 256: as large a share.
        """
        target = squares(32)
        raw = answer(method, target)
        blank = raw._replace(columns=[0 * maps for maps in raw.columns], rows=[0 * maps for maps in raw.rows])
        losses = losses_of(method, blank, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 64 / 4 / (64 + 1024 / 16)), rel=1e-3)

    def test_of_two_instances_on_one_cell_the_last_or_the_smallest_is_learnt(
        self, classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = squares(24, 20)  # on the same cells of the first two levels, of classes 0 and 1
        order = torch.tensor([1, 0])
        for shared, target, learnt in (
            ("reference", both, both[1:]),
            ("reference", both[order], both[:1]),
            ("smallest", both, both[1:]),
            ("smallest", both[order], both[1:]),
        ):
            method = build(classes, shared_cells=shared)
            losses = losses_of(method, answer(method, learnt, every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_without_objects_the_class_loss_alone_remains(
        self, method: DecoupledSOLO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
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
    for layer in (*method.rows, *method.columns, method.classify):
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full_like(layer.bias, 0.01))
