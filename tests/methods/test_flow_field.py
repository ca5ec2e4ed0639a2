from __future__ import annotations

from functools import partial

import pytest
import torch

from answers import answer
from cells import FRAME, matched, narrow, rectangles
from maskbench.errors import ConfigError
from maskbench.methods.flow_field import FlowField
from maskbench.nn.decoders import semantic_fpn
from maskbench.structures import Batch


@pytest.fixture
def method(classes: tuple[str, ...]) -> FlowField:
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    return FlowField(backbone=narrow(), classes=classes, decoder=decoder, steps=60)


TOUCHING = ((0, 0, 24, 64), (24, 0, 64, 28), (24, 28, 64, 64))


class TestPrediction:
    def test_touching_objects_of_one_class_are_told_apart(self, method: FlowField) -> None:
        target = rectangles((64, 64), *TOUCHING, labels=[0, 0, 0])
        (found,) = method.instances(answer(method, [target]), [FRAME])
        row, overlap = matched(found, target)
        assert sorted(row.tolist()) == [0, 1, 2]
        assert overlap.min() > 0.95
        assert found.masks.dense().sum(dim=0).max() == 1

    def test_a_flow_that_is_not_that_of_its_mask_costs_score_and_in_the_end_the_instance(
        self, method: FlowField
    ) -> None:
        target = rectangles((64, 64), (0, 0, 64, 64), labels=[1])
        raw = answer(method, [target])
        good = method.instances(raw, [FRAME])[0].scores.item()
        turned = raw._replace(flow=0.6 * raw.flow)
        worse = method.instances(turned, [FRAME])[0].scores.item()
        assert worse < good
        method.largest_error = 0.1
        assert len(method.instances(raw, [FRAME])[0]) == 1
        assert len(method.instances(turned, [FRAME])[0]) == 0

    def test_foreground_too_small_for_a_sink(self, method: FlowField) -> None:
        target = rectangles((64, 64), (0, 0, 8, 4), labels=[0])  # two cells, and four are asked for
        assert [len(image) for image in method.instances(answer(method, [target]), [FRAME])] == [0]

    def test_true_flows_mend_wrong_ones(self, method: FlowField) -> None:
        target = rectangles((64, 64), *TOUCHING, labels=[0, 0, 0])
        raw = answer(method, [target])._replace(flow=torch.zeros(1, 2, 16, 16))
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        assert len(method.given(raw, batch, "flows")[0]) == 3


THIN = ((0, 0, 32, 8), (0, 8, 32, 16), (0, 24, 64, 64))


class TestCeiling:
    @pytest.mark.parametrize(("objects", "drawn"), [(TOUCHING, [0, 1, 2]), (THIN, [2])])
    def test_is_what_true_flows_lead_to(
        self, method: FlowField, objects: tuple[tuple[int, int, int, int], ...], drawn: list[int]
    ) -> None:
        """Sinks of what is two cells wide lie two cells apart, and what they gather has no flow of its own."""
        target = rectangles((64, 64), *objects, labels=[0, 0, 0])
        (found,) = method.ceiling(Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,)))
        row, overlap = matched(found, target[torch.tensor(drawn)])
        assert sorted(row.tolist()) == list(range(len(drawn))) == list(range(len(found)))
        assert overlap.min() > 0.95


class TestTraining:
    def test_the_truth_costs_nothing_and_losses_arrive_weighted(
        self, method: FlowField, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = answer(method, batch.targets)
        monkeypatch.setattr(method, "forward", lambda images: raw)
        assert {name: loss.item() for name, loss in method.loss(batch).items()} == pytest.approx(
            {"semantic": 0, "flow": 0}, abs=1e-5
        )
        still = raw._replace(flow=torch.zeros_like(raw.flow))
        monkeypatch.setattr(method, "forward", lambda images: still)
        truth = method.true_maps(batch)
        moving = (truth.cells >= 0)[truth.inside].float().mean().item()
        # unit vectors times five: of the photos' cells the mean over two components of 25 a moving one, halved
        assert method.loss(batch)["flow"].item() == pytest.approx(0.5 * 25 * moving / 2, rel=0.02)

    def test_small_objects_are_heard(self, method: FlowField, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two objects and their background, the small one alone is wrong: a third, however few its cells are."""
        target = rectangles((64, 64), (0, 0, 60, 64), (60, 0, 64, 8), labels=[0, 1])
        batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
        raw = answer(method, [target])
        still = raw.flow.clone()
        still[:, :, :2, 15] = 0
        monkeypatch.setattr(method, "forward", lambda images: raw._replace(flow=still))
        by_cells = method.loss(batch)["flow"].item()
        method.balance = "objects"
        by_objects = method.loss(batch)["flow"].item()
        moving = float(torch.linalg.vector_norm(raw.flow[0, :, :2, 15], dim=0).square().sum())
        assert by_cells == pytest.approx(0.5 * moving / 2 / 256)
        assert by_objects == pytest.approx(0.5 * moving / 2 / 2 / 3)


def test_a_window_has_a_middle(method: FlowField) -> None:
    with pytest.raises(ConfigError, match="window=4: expected an odd number"):
        FlowField(backbone=method.backbone, classes=method.classes, window=4)
