from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from answers import answer
from cells import FRAME, STRIDE, matched, narrow, rectangles, semantic_logits
from maskbench.methods.centre_offset import CentreOffset, Raw, Truth
from maskbench.nn.decoders import semantic_fpn
from maskbench.ops.grouping import true_cells
from maskbench.structures import Batch, Frame, Instances

CUT = Frame(1, photo=(56, 56), resized=(56, 56))


@pytest.fixture
def method(classes: tuple[str, ...]) -> CentreOffset:
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    return CentreOffset(backbone=narrow(), classes=classes, decoder=decoder, class_width=8, window=17)


def truth_of(method: CentreOffset, target: Instances) -> Truth:
    return method.truth(true_cells(target, STRIDE), len(target))


def one(target: Instances) -> Batch:
    return Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))


class TestTargets:
    def test_centres_bumps_and_offsets_by_hand(self, method: CentreOffset) -> None:
        """Cells of rows 0 to 4 and columns 0 to 8; their mean is row 2, column 4. σ is 8 px, two cells."""
        truth = truth_of(method, rectangles((64, 64), (0, 0, 36, 20), labels=[1]))
        assert truth.heat[2, 4] == 1
        assert truth.heat[2, 6].item() == pytest.approx(torch.tensor(-0.5).exp().item())
        assert truth.heat[5, 8].item() == pytest.approx(torch.tensor(-25 / 8).exp().item())
        assert truth.offset[:, 0, 0].tolist() == [2, 4]
        assert truth.offset[:, 4, 8].tolist() == [-2, -4]
        assert truth.offset.any(dim=0).sum() == 44, "all but the centre"

    def test_cells_of_small_objects_weigh_more(self, method: CentreOffset) -> None:
        method.small = (400, 3.0)
        truth = truth_of(method, rectangles((64, 64), (0, 0, 16, 16), (0, 16, 64, 64), labels=[0, 0]))
        assert truth.weight[0, 0] == 3
        assert truth.weight[8, 8] == 1

    def test_an_object_without_a_cell_has_no_centre(self, method: CentreOffset) -> None:
        truth = truth_of(method, rectangles((64, 64), (0, 0, 64, 64), (0, 0, 1, 1), labels=[0, 1]))
        assert truth.heat.max() == 1
        assert (truth.heat == 1).sum() == 1
        assert not truth.offset.isnan().any()


class TestPrediction:
    def test_most_of_the_cells_say_the_class_of_all(self, method: CentreOffset) -> None:
        raw = answer(method, [rectangles((64, 64), (0, 0, 64, 64), labels=[0])])
        raw.semantic[0, :, :, 10:] = torch.tensor([0.0, 20.0, 0.0])[:, None, None]
        (found,) = method.instances(raw, [FRAME])
        assert found.labels.tolist() == [0]
        assert found.masks.areas().tolist() == [64 * 64]
        assert found.scores.item() == pytest.approx(10 / 16, abs=1e-3)

    def test_peaks(self, method: CentreOffset) -> None:
        """Two cells either way: the second is too near a hotter one, the third too cold, the last padding."""
        heat = torch.zeros(16, 16)
        for (row, column), value in {(2, 2): 0.9, (4, 4): 0.8, (2, 12): 0.05, (12, 2): 0.5, (15, 15): 0.7}.items():
            heat[row, column] = value
        found = method.peaks(heat, CUT)
        assert found.cell.tolist() == [[2, 2], [12, 2]]
        assert found.heat.tolist() == pytest.approx([0.9, 0.5])
        hot = heat.clone()
        hot[13, 14] = 1.0  # beyond the photo, beside the last
        assert method.peaks(hot, CUT).cell.tolist() == found.cell.tolist()
        level = torch.zeros(16, 16)
        level[4, 4:6] = 0.5  # a tie, as half precision has many
        assert method.peaks(level, FRAME).cell.tolist() == [[4, 4]]
        method.centres = 1
        assert found.cell[:1].tolist() == method.peaks(heat, CUT).cell.tolist()

    def test_nothing_and_no_centre(self, method: CentreOffset, batch: Batch, without_objects: Batch) -> None:
        nothing = method.instances(answer(method, without_objects.targets), without_objects.frames)
        cold = answer(method, batch.targets)._replace(heat=torch.zeros(2, 1, 32, 32))
        assert [len(image) for image in (*nothing, *method.instances(cold, batch.frames))] == [0] * 4


class TestOracles:
    target = rectangles((64, 64), (0, 0, 32, 64), (32, 0, 64, 64), labels=[0, 1])

    def test_true_centres_and_their_number(self, method: CentreOffset) -> None:
        raw, batch = answer(method, [self.target]), one(self.target)
        cold = raw._replace(heat=0.05 * raw.heat)
        assert len(method.instances(cold, [FRAME])[0]) == 0
        assert sorted(method.given(cold, batch, "centres")[0].labels.tolist()) == [0, 1]
        assert sorted(method.given(cold, batch, "count")[0].labels.tolist()) == [0, 1]

    def test_the_true_map(self, method: CentreOffset) -> None:
        raw = answer(method, [self.target])
        (found,) = method.given(raw._replace(semantic=torch.zeros(1, 3, 16, 16)), one(self.target), "semantic map")
        assert matched(found, self.target)[1].tolist() == [1, 1]


def test_the_ceiling_has_one_of_two_centres_that_are_neighbours(method: CentreOffset) -> None:
    target = rectangles((64, 64), (0, 0, 64, 16), (0, 16, 8, 24), (8, 16, 16, 24), labels=[0, 1, 1])
    (found,) = method.ceiling(one(target))
    assert len(found) == 2
    assert matched(found, target)[1].tolist() == pytest.approx([1, 0.5, 0.5], abs=0.02)


class TestTraining:
    def losses(self, method: CentreOffset, raw: Raw, batch: Batch, patch: pytest.MonkeyPatch) -> dict[str, float]:
        patch.setattr(method, "forward", lambda images: raw)
        return {name: loss.item() for name, loss in method.loss(batch).items()}

    def test_the_truth_costs_nothing(self, method: CentreOffset, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
        losses = self.losses(method, answer(method, batch.targets), batch, monkeypatch)
        assert losses == pytest.approx({"semantic": 0, "heat": 0, "offset": 0}, abs=1e-4)

    def test_losses_arrive_weighted(self, method: CentreOffset, monkeypatch: pytest.MonkeyPatch) -> None:
        """The heat is off by a half everywhere, and every offset by a cell along each axis."""
        batch = one(rectangles((64, 64), (0, 0, 64, 32), labels=[0]))
        raw = answer(method, batch.targets)
        losses = self.losses(method, raw._replace(heat=raw.heat + 0.5, offset=raw.offset + 1), batch, monkeypatch)
        assert losses == pytest.approx({"semantic": 0, "heat": 200 * 0.25, "offset": 0.01 * 4 * 2}, abs=1e-4)

    def test_small_objects_are_heard(self, method: CentreOffset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of an object of 240 cells and one of 2 the small one's offsets are off by a cell."""
        batch = one(rectangles((64, 64), (0, 0, 60, 64), (60, 0, 64, 8), labels=[0, 1]))
        raw = answer(method, batch.targets)
        raw.offset[0, 0, :2, 15] += 1
        off = 0.01 * 4  # a cell of four pixels
        assert self.losses(method, raw, batch, monkeypatch)["offset"] == pytest.approx(off * 2 / 242)
        method.balance = "objects"
        assert self.losses(method, raw, batch, monkeypatch)["offset"] == pytest.approx(off / 2)

    def test_the_hardest_cells_alone_learn(self, method: CentreOffset) -> None:
        """Eight of 256 cells are wrong, each by a logit of 20."""
        target = rectangles((64, 64), (0, 0, 64, 64), labels=[0])
        logits = semantic_logits(target)[None]
        logits[0, :, 0, :8] = torch.tensor([0.0, 20.0, 0.0])[:, None]
        classes, weight = torch.zeros(1, 16, 16, dtype=torch.long), torch.ones(1, 16, 16)
        assert method.semantic_loss(logits, classes, weight).item() == pytest.approx(20 * 8 / 256, rel=1e-4)
        method.hard = 1 / 16
        assert method.semantic_loss(logits, classes, weight).item() == pytest.approx(20 * 8 / 16, rel=1e-4)

    def test_padding_teaches_nothing(self, method: CentreOffset, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever is said beyond a photo of 56 × 56, the losses are those of the photo."""
        target = rectangles((64, 64), (0, 0, 56, 32), labels=[0])
        batch = replace(one(target), frames=(CUT,))
        raw = answer(method, [target])
        loud = Raw(*(part.clone() for part in raw[:3]))
        for maps in loud[:3]:
            maps[..., 14:, :] = 5.0
            maps[..., 14:] = 5.0
        assert self.losses(method, raw, batch, monkeypatch) == self.losses(method, loud, batch, monkeypatch)


def test_lengths_are_given_in_pixels(method: CentreOffset, classes: tuple[str, ...]) -> None:
    assert method.sigma == 2
    assert method.reach_of_centre == 2
    with pytest.raises(ValueError, match="'best'; expected one of"):
        CentreOffset(backbone=method.backbone, classes=classes, score="best")
