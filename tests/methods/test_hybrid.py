from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cells import FRAME, assert_each_found, matched, narrow, rectangles
from maskbench.methods.hybrid import Hybrid, Raw, gathered, inside
from maskbench.ops.grouping import true_cells
from maskbench.ops.locations import Locations
from maskbench.structures import Batch, Instances

RANGES = ((0, 48), (48, 96), (96, 192), (192, 1e8))


def made(*strides: int) -> Hybrid:
    widths = {"width": 8, "head_width": 8, "head_depth": 1, "decoder_width": 8, "dimensions": 8}
    return Hybrid(backbone=narrow(strides), classes=("red", "blue"), ranges=RANGES, **widths)


@pytest.fixture
def method() -> Hybrid:
    return made(4, 8, 16, 32)


def answer(method: Hybrid, targets: Sequence[Instances]) -> Raw:
    """The output that says the truth: object n lies on the n-th axis, 10 from the others, with a margin of 1."""
    height, width = targets[0].masks.size
    levels = [torch.zeros(1, 1, height // stride, width // stride) for stride in method.strides]
    locations = Locations.of(levels, method.strides)
    count, images = len(locations.point), []
    for target in targets:
        owner = locations.owners(target.boxes, method.ranges, method.radius)
        boxes = torch.cat([target.boxes, torch.tensor([[0.0, 0, 8, 8]])])
        labels = torch.cat([target.labels, torch.tensor([2])])
        images.append(
            (
                40 * F.one_hot(labels[owner], 3)[:, :2].float() - 20,
                locations.sides(boxes[owner]).clamp(min=0),
                torch.full((count,), 20.0),
                10 * torch.eye(8)[owner],
                torch.full((count,), math.log(0.5)),
                10 * torch.eye(8)[true_cells(target, method.mask_stride)].permute(2, 0, 1),
            )
        )
    return Raw(locations, *map(torch.stack, zip(*images, strict=True)))


def one(target: Instances) -> Batch:
    return Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))


class TestPrediction:
    def test_finer_maps_draw_finer_masks(self, batch: Batch, truth: list[Instances]) -> None:
        least = []
        for method in (made(4, 8, 16, 32), made(2, 4, 8, 16)):
            found = method.instances(answer(method, batch.targets), batch.frames)
            least.append(min(matched(*image)[1].min().item() for image in zip(found, truth, strict=True)))
            assert all(loss.isfinite() for loss in method.loss(batch).values())
        assert least[1] > least[0]
        assert least[1] > 0.93

    def test_the_truth_gives_what_can_be_drawn_of_it(
        self, method: Hybrid, batch: Batch, truth: list[Instances]
    ) -> None:
        found = method.instances(answer(method, batch.targets), batch.frames)
        assert_each_found(found, method.ceiling(batch), overlap=0.98)
        for instances in found:
            torch.testing.assert_close(instances.scores, torch.ones(len(instances)))

    def test_a_mask_ends_at_its_box_and_at_its_margin(self, method: Hybrid) -> None:
        target = rectangles((64, 64), (0, 0, 64, 32), (0, 32, 64, 64), labels=[0, 0])
        raw = answer(method, [target])
        raw.pixels[:] = raw.pixels[..., :1, :1]  # all cells lie where the first object's do
        (found,) = method.instances(raw, [FRAME])
        assert found.masks.areas().tolist() == [64 * 32]
        wide = raw._replace(sharpness=raw.sharpness - 10)  # a margin that reaches the other object's place
        (found,) = method.instances(wide, [FRAME])
        assert found.masks.areas().tolist() == [64 * 32, 64 * 32]

    def test_score_is_class_and_centredness_and_nms_goes_by_it(self, method: Hybrid) -> None:
        raw = answer(method, [rectangles((64, 64), (8, 8, 40, 40), labels=[1])])
        (found,) = method.instances(raw._replace(centred=torch.zeros_like(raw.centred)), [FRAME])
        assert found.scores.tolist() == pytest.approx([0.5**0.5], abs=1e-3)

    def test_limits(self, method: Hybrid) -> None:
        raw = answer(method, [rectangles((64, 64), (0, 0, 24, 24), (32, 32, 60, 60), labels=[0, 1])])
        assert len(method.instances(raw, [FRAME])[0]) == 2
        method.point = replace(method.point, max_instances=1)
        assert len(method.instances(raw, [FRAME])[0]) == 1

    def test_nothing(self, method: Hybrid, without_objects: Batch) -> None:
        found = method.instances(answer(method, without_objects.targets), without_objects.frames)
        assert [len(image) for image in found] == [0, 0]


class TestParts:
    def test_gathered_by_hand(self) -> None:
        pixels = torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 0.0, 0.0]]])
        found = gathered(pixels, torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0.0, math.log(0.5)]))
        expected = [[1, math.exp(-1), math.exp(-4)], [math.exp(-1), math.exp(-0.5), math.exp(-1)]]
        torch.testing.assert_close(found[:, 0], torch.tensor(expected))
        assert gathered(pixels, torch.zeros(0, 2), torch.zeros(0)).shape == (0, 1, 3)

    def test_inside_is_every_cell_that_a_box_touches(self) -> None:
        (found,) = inside(torch.tensor([[5.0, 0.0, 12.0, 4.1]]), (3, 4), 4)
        assert found.int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


class TestTraining:
    def losses(self, method: Hybrid, raw: Raw, batch: Batch, patch: pytest.MonkeyPatch) -> dict[str, float]:
        patch.setattr(method, "forward", lambda images: raw)
        return {name: loss.item() for name, loss in method.loss(batch).items()}

    def test_the_truth_costs_nothing_but_what_is_said_of_the_middle(
        self, method: Hybrid, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = self.losses(method, answer(method, batch.targets), batch, monkeypatch)
        losses.pop("centred")
        assert losses == pytest.approx({"class": 0, "box": 0, "mask": 0, "coupling": 0}, abs=1e-3)

    def test_an_embedding_that_gathers_nothing_loses_its_mask(
        self, method: Hybrid, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The object's cells are all taken for none: every error is 2, and so is the loss before its weight."""
        target = rectangles((64, 64), (0, 0, 64, 32), labels=[0])
        raw = answer(method, [target])
        away = raw._replace(embedding=raw.embedding + 20)
        losses = self.losses(method, away, one(target), monkeypatch)
        assert losses["mask"] == pytest.approx(0.5 * 2, abs=1e-3)

    def test_locations_of_an_object_are_drawn_together(self, method: Hybrid, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half of them lie 1 and half of them −1 from their mean along one axis."""
        target = rectangles((64, 64), (0, 0, 32, 32), labels=[0])
        raw = answer(method, [target])
        learns = (raw.locations.owners(target.boxes, method.ranges, method.radius) >= 0).nonzero()[:, 0]
        assert len(learns) % 2 == 0
        raw.embedding[0, learns[::2], 7] += 1
        raw.embedding[0, learns[1::2], 7] -= 1
        losses = self.losses(method, raw, one(target), monkeypatch)
        assert losses["coupling"] == pytest.approx(0.1, abs=1e-4)

    def test_objects_without_a_location(self, method: Hybrid) -> None:
        target = rectangles((64, 64), (0, 0, 32, 32), (0, 0, 2, 2), labels=[0, 1])
        assert method.reach(answer(method, [target]), one(target)) == [{"a location of its own": (1, 2)}]

    def test_the_best_location_of_each_object(self, method: Hybrid) -> None:
        target = rectangles((64, 64), (0, 0, 64, 32), (0, 32, 64, 64), labels=[1, 0])
        raw = answer(method, [target])
        (found,) = method.given(raw._replace(logits=torch.zeros_like(raw.logits)), one(target), "cells")
        row, overlap = matched(found, target)
        assert overlap.tolist() == [1, 1]
        assert found.labels[row].tolist() == [1, 0]
