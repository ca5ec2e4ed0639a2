from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from goldens import Golden, resampled_twice
from grid_methods import Answer, Build, FirstGoldenTests, FirstTrainingTests, PredictionTests
from maskbench.methods import decoupled_solo
from maskbench.methods.decoupled_solo import DecoupledSOLO, Raw, paint
from maskbench.ops.grid import resized
from maskbench.ops.masks import shrink
from maskbench.structures import Batch, Instances
from squares import GRIDS, losses_of, settings_of, squares, thin_backbone


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "goldens", "decoupled-solo", DecoupledSOLO)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class TestGolden(FirstGoldenTests):
    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw) -> None:
        size = raw.columns[0].shape[2:]
        for level, (logits, columns, rows) in enumerate(zip(*raw, strict=True)):
            golden.holds(f"raw/cls{level}", logits)
            for axis, maps in (("x", columns), ("y", rows)):
                golden.holds(f"raw/mask_{axis}{level}", maps)
                golden.holds(f"act/mask_{axis}{level}", torch.stack([resized(one.sigmoid(), size) for one in maps]))

    def positives(self, golden: Golden, image: int, level: int) -> Tensor:
        row, column = golden[f"train/img{image}/lvl{level}/pos"].unbind(dim=1)
        return row * golden.method.grids.sides[level] + column

    @torch.no_grad()
    def test_suppression_and_detections(
        self, golden: Golden, raw: Raw, suppressed: list[tuple[Tensor, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoupled_solo, "to_photo", resampled_twice)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_suppression(image, *suppressed[image])
            golden.holds_instances(f"pred/{image}", found, overlap=0.99)


@pytest.fixture
def build(classes: tuple[str, ...]) -> Build:
    narrow = {"width": 8, "head_width": 8, "head_depth": 1, **GRIDS}
    return lambda **settings: DecoupledSOLO(backbone=thin_backbone(), classes=classes, **{**narrow, **settings})


@pytest.fixture
def answer() -> Answer:
    return truthful


def truthful(method: DecoupledSOLO, target: Instances, every_cell: bool = False) -> Raw:
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

    def test_each_tower_knows_its_own_axis(self, build: Build) -> None:
        assert self.moved(build()) == {
            "columns along x": True,
            "columns along y": False,
            "rows along x": False,
            "rows along y": True,
        }

    def test_a_shared_tower_knows_both(self, build: Build) -> None:
        made = build(shared_tower=True)
        assert len(made.mask_towers) == 1
        assert all(self.moved(made).values())

    @pytest.mark.parametrize("shared_tower", [True, False])
    def test_without_coordinates_nothing_tells_where_it_is(self, build: Build, shared_tower: bool) -> None:
        made = build(coordinates=False, shared_tower=shared_tower)
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


class TestPrediction(PredictionTests):
    overlap = 0.8  # a product of two probabilities of one half is a quarter: outlines shrink

    def test_a_cell_is_its_column_and_its_row(self) -> None:
        columns, rows = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
        found = paint([columns], [rows], 0, torch.tensor([5, 6]))  # row 1 column 2, row 2 column 0
        torch.testing.assert_close(found, torch.stack([columns[2] * rows[1], columns[0] * rows[2]]))
        assert paint([columns], [rows], 0, torch.zeros(0, dtype=torch.long)).shape == (0, 2, 4)


class TestTraining(FirstTrainingTests):
    def test_the_truth_costs_nothing(self, build: Build, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        method = build()
        for target in (*batch.targets, squares(24), squares(20)):
            losses = losses_of(method, truthful(method, target, every_cell=True), target, monkeypatch)
            assert losses == pytest.approx({"mask": 0, "class": 0}, abs=1e-3)

    def test_a_mask_costs_its_dice_at_half_the_stride_of_its_level(
        self, build: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A square of 32 pixels, which levels 1 and 2 learn, painted everywhere with a probability of ½ · ½.

        At stride 4 it has 64 of 1,024 cells, at stride 8 it has 16 of 256: as large a share.
        """
        method, target = build(), squares(32)
        raw = truthful(method, target)
        blank = raw._replace(columns=[0 * maps for maps in raw.columns], rows=[0 * maps for maps in raw.rows])
        losses = losses_of(method, blank, target, monkeypatch)
        assert losses["mask"] == pytest.approx(3 * (1 - 2 * 64 / 4 / (64 + 1024 / 16)), rel=1e-3)


def test_masks_and_classes_start_improbable(build: Build) -> None:
    """As released: at one in a hundred, or what is background everywhere would outweigh all objects."""
    method = build()
    for layer in (*method.rows, *method.columns, method.classify):
        torch.testing.assert_close(layer.bias.sigmoid(), torch.full_like(layer.bias, 0.01))
