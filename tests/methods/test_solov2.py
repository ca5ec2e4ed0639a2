from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from goldens import Golden
from grid_methods import Answer, Build, GoldenTests, PredictionTests, TrainingTests
from maskbench.methods.solov2 import Raw, SOLOv2
from maskbench.ops.masks import shrink
from maskbench.structures import Batch, Instances
from squares import FRAME, GRIDS, losses_of, settings_of, squares, thin_backbone


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solov2", SOLOv2)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden(GoldenTests):
    every_claim = True

    def test_heads(self, golden: Golden, raw: Raw) -> None:
        golden.holds("raw/mask_feats", raw.features)
        for level, (logits, kernels) in enumerate(zip(raw.logits, raw.kernels, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            golden.holds(f"raw/kernel{level}", kernels)

    def positives(self, golden: Golden, image: int, level: int) -> Tensor:
        return golden[f"train/img{image}/lvl{level}/pos_index_list"]

    @torch.no_grad()
    def test_suppression_and_detections(self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]]) -> None:
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found)


@pytest.fixture
def build(classes: tuple[str, ...]) -> Build:
    narrow = {"width": 8, "head_width": 8, "head_depth": 1, "feature_width": 8, "kernel_channels": 4, **GRIDS}
    return lambda **settings: SOLOv2(backbone=thin_backbone(), classes=classes, **{**narrow, **settings})


@pytest.fixture
def method(build: Build) -> SOLOv2:
    return build()


@pytest.fixture
def answer() -> Answer:
    return lambda method, target, every_cell=False: truthful(method, [target], every_cell)


def levels(method: SOLOv2, flat: Tensor) -> list[Tensor]:
    """[B A D] of all cells → [B D S S] level by level."""
    parts = flat.transpose(1, 2).split([side**2 for side in method.grids.sides], dim=2)
    return [part.unflatten(2, (side, side)) for part, side in zip(parts, method.grids.sides, strict=True)]


def truthful(method: SOLOv2, targets: Sequence[Instances], every_cell: bool = False) -> Raw:
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


class TestPrediction(PredictionTests):
    overlap, drawable, score = 0.999, 0.9, 0.9999

    def test_images_of_a_batch_are_their_own(self, method: SOLOv2, batch: Batch, truth: list[Instances]) -> None:
        found = method.instances(truthful(method, batch.targets), batch.frames)
        for instances, single, true in zip(found, batch, truth, strict=True):
            (alone,) = method.instances(truthful(method, single.targets), single.frames)
            assert len(instances) == len(true)
            assert torch.equal(instances.labels, alone.labels)
            assert torch.equal(instances.masks.dense(), alone.masks.dense())

    @pytest.mark.parametrize(("cells", "kept"), [(8, 0), (9, 1)])
    def test_a_mask_is_larger_than_the_stride_of_its_level(self, method: SOLOv2, cells: int, kept: int) -> None:
        raw = truthful(method, [squares(16)])  # learnt on the finest level, stride 8
        raw.features[0, 0] = -1
        raw.features[0, 0, 10, 10 : 10 + cells] = 1
        assert len(method.instances(raw, [FRAME])[0]) == kept

    def test_duplicates_decay_below_the_threshold(self, method: SOLOv2, batch: Batch) -> None:
        """A duplicate keeps e⁻² of its score: 0.135."""
        raw = truthful(method, batch.targets, every_cell=True)
        method.select = replace(method.select, decayed=1.3)
        assert min(len(instances) for instances in method.instances(raw, batch.frames)) > 3
        method.select = replace(method.select, decayed=1.4)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [3, 2]

    def test_candidates_and_instances_are_limited(self, method: SOLOv2, batch: Batch) -> None:
        raw = truthful(method, batch.targets)
        method.point = replace(method.point, max_instances=2)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [2, 2]
        method.point = replace(method.point, candidates=1)
        assert [len(instances) for instances in method.instances(raw, batch.frames)] == [1, 1]


class TestTraining(TrainingTests):
    def test_the_truth_costs_nothing(self, method: SOLOv2, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        for target in batch.targets:
            losses = losses_of(method, truthful(method, [target], every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_two_instances_on_one_cell_keep_both_masks_and_the_later_label(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Squares of 16 and 36 cells of the mask features share their eight grid cells, which all paint the first."""
        target = squares(16, 24)
        cell, instance = method.grids.claims(target)
        assert torch.equal(cell[instance == 0], cell[instance == 1])
        assert len(cell) == 16

        raw = truthful(method, [target[:1]], every_cell=True)
        losses = losses_of(method, raw, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 16 / (16 + 36)), abs=1e-3)  # over 8 cells, not 16 pairs
        later = truthful(method, [squares(16, 16)[1:]], every_cell=True)
        assert losses["class"] > 1
        assert losses_of(method, later, target, monkeypatch)["class"] == pytest.approx(0, abs=1e-5)

    def test_two_instances_on_one_cell_where_the_smallest_has_it(
        self, method: SOLOv2, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Painting the smaller of two squares on their common cells costs nothing, in either order."""
        method.grids = replace(method.grids, shared="smallest")
        both = squares(16, 24)
        raw = truthful(method, [both[:1]], every_cell=True)
        for order in ([0, 1], [1, 0]):
            losses = losses_of(method, raw, both[torch.tensor(order)], monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)


class TestVariants:
    def test_only_coordinates_tell_a_kernel_where_it_is(self, build: Build) -> None:
        """Of features that are the same everywhere a network without them makes the same inside, borders apart."""
        for coordinates in (True, False):
            made = build(coordinates=coordinates)
            made.fpn.forward = lambda features: [torch.ones(1, 8, side, side) for side in (128, 64, 32, 16, 8)]
            raw = made(torch.zeros(1, 3, 512, 512))
            for maps, border in ((raw.kernels[0], 3), (raw.features, 24)):
                inside = maps[:, :, border:-border, border:-border]
                assert torch.allclose(inside, inside[:, :, :1, :1], rtol=1e-4) is not coordinates

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
