from __future__ import annotations

from functools import partial

import pytest
import torch

from answers import answer
from cells import FRAME, matched, narrow, rectangles
from maskbench.methods.spatial_embedding import Raw, SpatialEmbedding
from maskbench.nn.decoders import semantic_fpn
from maskbench.ops.grouping import position
from maskbench.structures import Batch


@pytest.fixture
def method(classes: tuple[str, ...]) -> SpatialEmbedding:
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    return SpatialEmbedding(backbone=narrow(), classes=classes, decoder=decoder, unit=128)


TOUCHING = ((0, 0, 24, 64), (24, 0, 64, 28), (24, 28, 64, 64))


class TestPrediction:
    def test_touching_objects_of_one_class_are_told_apart_by_the_margin(self, method: SpatialEmbedding) -> None:
        target = rectangles((64, 64), *TOUCHING, labels=[0, 0, 0])
        (found,) = method.instances(answer(method, [target]), [FRAME])
        row, overlap = matched(found, target)
        assert sorted(row.tolist()) == [0, 1, 2]
        assert overlap.min() > 0.95
        assert len(method.instances(answer(method, [target], sigma=1.0), [FRAME])[0]) == 1

    def test_no_seed_is_sure_enough(self, method: SpatialEmbedding) -> None:
        raw = answer(method, [rectangles((64, 64), *TOUCHING, labels=[0, 0, 0])])
        unsure = raw._replace(seed=raw.seed.clamp(max=1.0))  # 0.73: foreground, and below 0.9
        assert len(method.instances(unsure, [FRAME])[0]) == 0


class TestTraining:
    def losses(self, method: SpatialEmbedding, raw: Raw, batch: Batch, patch: pytest.MonkeyPatch) -> dict[str, float]:
        patch.setattr(method, "forward", lambda images: raw)
        return {name: loss.item() for name, loss in method.loss(batch).items()}

    def test_the_truth_costs_nothing(
        self, method: SpatialEmbedding, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where what is beyond the margin is far beyond it."""
        losses = self.losses(method, answer(method, batch.targets, sigma=0.01), batch, monkeypatch)
        assert losses == pytest.approx({"instance": 0, "margin": 0, "seed": 0}, abs=1e-3)

    def test_the_instance_loss_by_hand(self, method: SpatialEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
        """All cells point to one place, so that the object takes the half that is its own and the other."""
        target = rectangles((64, 64), (0, 0, 32, 64), labels=[0])
        raw = answer(method, [target])
        place = method.step * position((16, 16), torch.device("cpu")).permute(2, 0, 1)
        raw = raw._replace(offset=(0.2 - place)[None].clamp(-0.99, 0.99).atanh())
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        # errors: 0 in the object and 2 outside; all of the outside is in the union, half of which is then wrong
        assert self.losses(method, raw, batch, monkeypatch)["instance"] == pytest.approx(2 * 0.5, abs=1e-3)

    def test_an_object_without_a_cell_of_its_own_costs_nothing(
        self, method: SpatialEmbedding, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second lies behind the first: whatever is near the corner is not held against it."""
        alone = rectangles((64, 64), (0, 0, 32, 64), labels=[0])
        hidden = rectangles((64, 64), (0, 0, 32, 64), (0, 0, 1, 1), labels=[0, 0])
        raw = answer(method, [alone])
        losses = []
        for target in (alone, hidden):
            batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
            losses.append(self.losses(method, raw, batch, monkeypatch))
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)

    def test_margins_of_an_object_are_drawn_together(
        self, method: SpatialEmbedding, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = rectangles((64, 64), (0, 0, 32, 64), labels=[0])
        raw = answer(method, [target])
        raw.sharpness[:, :, :8] += 0.1
        raw.sharpness[:, :, 8:] -= 0.1
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        assert self.losses(method, raw, batch, monkeypatch)["margin"] == pytest.approx(10 * 0.1**2, rel=1e-3)

    def test_seeds_learn_how_well_a_cell_points(
        self, method: SpatialEmbedding, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half of the cells are of the object; one class says 1/2 everywhere, the other nothing."""
        target = rectangles((64, 64), (0, 0, 32, 64), labels=[0])
        raw = answer(method, [target])
        raw.seed[:, 0] = 0.0
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        expected = 0.5 * 10 * 0.25 + 0.5 * 0.25
        assert self.losses(method, raw, batch, monkeypatch)["seed"] == pytest.approx(expected, rel=1e-3)
