from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from goldens import Golden, resampled_twice
from grid_methods import Answer, Build, FirstGoldenTests, FirstTrainingTests, PredictionTests
from maskbench.methods import solo
from maskbench.methods.solo import SOLO, Raw
from maskbench.ops.grid import resized
from maskbench.ops.masks import pairwise_iou
from maskbench.structures import Instances
from squares import FRAME, GRIDS, losses_of, squares, thin_backbone


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "solo", SOLO)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden(FirstGoldenTests):
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

    @torch.no_grad()
    def test_suppression_and_detections(
        self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(solo, "to_photo", resampled_twice)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found, overlap=0.99)


@pytest.fixture
def build(classes: tuple[str, ...]) -> Build:
    narrow = {"width": 8, "head_width": 8, "head_depth": 1, **GRIDS}
    return lambda **settings: SOLO(backbone=thin_backbone(), classes=classes, **{**narrow, **settings})


@pytest.fixture
def answer() -> Answer:
    return truthful


def truthful(method: SOLO, target: Instances, every_cell: bool = False) -> Raw:
    """The output that says the truth about one image: of each level's features channel n is the outline of object n.

    The kernel of an object's cells chooses its channel and is set in `method`; the class of the first of them is
    certain, or of all.
    """
    grids = method.grids
    for weight in method.masks.parameters():
        nn.init.zeros_(weight)
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
    def test_only_coordinates_tell_a_mask_tower_where_it_is(self, build: Build, coordinates: bool) -> None:
        """Of features that are the same everywhere a tower without them makes the same inside, borders apart."""
        made = build(coordinates=coordinates)
        made.fpn.forward = lambda features: [torch.ones(1, 8, side, side) for side in (64, 32, 16, 8, 4)]
        inside = made(torch.zeros(1, 3, 256, 256)).features[0][:, :, 4:-4, 4:-4]
        assert torch.allclose(inside, inside[:, :, :1, :1]) is not coordinates

    def test_masks_are_the_paper_s_up_sampled_features_convolved(self, build: Build) -> None:
        made = build()
        nn.init.normal_(made.masks[1].bias)
        features = torch.randn(8, 5, 7)
        up = F.interpolate(features[None], scale_factor=2, mode="bilinear")
        found = made.mask_logits(1, torch.tensor([5, 0, 5]), features)
        torch.testing.assert_close(found, made.masks[1](up)[0, [5, 0, 5]])


class TestPrediction(PredictionTests):
    overlap = 0.7

    @pytest.mark.parametrize(("side", "level"), [(16, 0), (32, 1), (48, 2), (64, 3)])
    def test_levels_of_other_strides_meet_at_stride_4(self, build: Build, side: int, level: int) -> None:
        """A square is found where it is, though its features have cells of up to 32 pixels."""
        method, target = build(), squares(side)
        cells = [cell for _, cell in method.grids.split(method.grids.claims(target).cell)]
        assert len(cells[level])
        assert not any(len(other) for other in cells[level + 2 :])
        raw = truthful(method, target)
        silent = [torch.full_like(logits, -20) for logits in raw.logits]
        silent[level].flatten(2)[:, 0, cells[level][0]] = 20
        (found,) = method.instances(raw._replace(logits=silent), [FRAME])
        assert pairwise_iou(found.masks.dense(), target.masks.dense()).item() > 0.85


class TestTraining(FirstTrainingTests):
    def test_a_mask_costs_its_dice_at_half_the_stride_of_its_level(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A square of 32 pixels, which levels 1 and 2 learn, and whose masks are painted everywhere.

        At stride 4 it has 64 of 1,024 cells, at stride 8 it has 16 of 256: as large a share.
        """
        method, target = build(), squares(32)
        raw = truthful(method, target, every_cell=True)
        for level in method.masks:
            level.weight.data.zero_()
            level.bias.data.fill_(20)
        losses = losses_of(method, raw, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 64 / (64 + 1024)), rel=1e-4)
        assert losses["class"] == pytest.approx(0, abs=1e-5)


def test_masks_and_classes_start_improbable(build: Build) -> None:
    """As released: at one in a hundred, or what is background everywhere would outweigh all objects."""
    method = build()
    for layer in (*method.masks, method.classify):
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full_like(layer.bias, 0.01))
