from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from cells import FRAME, one_hot, rectangles
from maskbench.errors import ConfigError
from maskbench.ops.grouping import (
    PADDING,
    SCORES,
    Groups,
    SemanticMap,
    drawn,
    enough_cells,
    group_iou,
    known_balance,
    known_rule,
    majority,
    mean_over_objects,
    position,
    redrawn,
    shared_out,
    true_maps,
)
from maskbench.structures import Batch, Frame, Masks, OperatingPoint

POINT = OperatingPoint(score_threshold=0.0, candidates=None, max_instances=10)


def one(*boxes: tuple[int, int, int, int], labels: list[int]) -> Batch:
    return Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (rectangles((64, 64), *boxes, labels=labels),), (FRAME,))


def test_large_and_small_objects_count_alike() -> None:
    """Two images of one row; objects of 3, 1 and 2 cells with means 2, 9 and 4, and cells of none."""
    cells = torch.tensor([[[0, 0, 0, 1]], [[-1, 0, 0, -1]]])
    values = torch.tensor([[[1.0, 2.0, 3.0, 9.0]], [[50.0, 4.0, 4.0, 50.0]]], requires_grad=True)
    assert mean_over_objects(values, cells).item() == pytest.approx((2 + 9 + 4) / 3)
    nothing = mean_over_objects(values, torch.full_like(cells, -1))
    nothing.backward()
    assert nothing.item() == 0
    assert values.grad is not None
    assert not values.grad.any()


def test_a_balance_is_one_of_two() -> None:
    with pytest.raises(ConfigError, match="balance='photos': expected one of cells, objects"):
        known_balance("photos")


class TestTruth:
    def test_cells_and_classes(self) -> None:
        """Also of encoded masks; the photo ends in the third row of cells."""
        target = rectangles((16, 16), (0, 0, 8, 16), (8, 8, 16, 16), labels=[1, 0])
        encoded = replace(target, masks=Masks(target.masks.rle()))
        frame = Frame(1, photo=(12, 16), resized=(12, 16))
        batch = Batch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), (target, encoded), (frame, frame))
        truth = true_maps(batch, background=2, stride=4)
        assert truth.cells[0].tolist() == [[0, 0, -1, -1]] * 2 + [[0, 0, 1, 1]] * 2
        assert truth.classes[0].tolist() == [[1, 1, 2, 2]] * 2 + [[1, 1, 0, 0]] + [[PADDING] * 4]
        assert torch.equal(truth.classes[0], truth.classes[1])
        assert truth.certain(3)[0, :, 2, 3].tolist() == [1, 0, 0]
        assert truth.certain(3)[0, :, 3, 3].tolist() == [0, 0, 1]

    def test_redrawn_is_the_truth_where_it_fits_cells(self) -> None:
        batch = one((0, 0, 64, 24), (0, 40, 64, 60), labels=[0, 1])
        (found,) = redrawn(batch, 4)
        assert torch.equal(found.masks.dense(), batch.targets[0].masks.dense())

    def test_cells_of_their_own(self) -> None:
        """The smaller one keeps its 4 cells, the larger one 12 of 16."""
        batch = one((0, 0, 16, 16), (0, 0, 8, 8), labels=[0, 0])
        assert enough_cells(batch, 4, 4) == [{"4 cells of its own": (2, 2)}]
        assert enough_cells(batch, 4, 12) == [{"12 cells of its own": (1, 2)}]
        assert enough_cells(batch, 4, 13) == [{"13 cells of its own": (0, 2)}]

    def test_position(self) -> None:
        assert position((2, 3), torch.device("cpu")).tolist() == [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]


class TestSemanticMap:
    def test_foreground_is_of_a_class_and_in_the_photo(self) -> None:
        probabilities = torch.tensor([0.2, 0.5, 0.3])[:, None, None].repeat(1, 4, 4)
        probabilities[:, 0, 0] = torch.tensor([0.3, 0.3, 0.4])
        known = SemanticMap(probabilities, Frame(1, photo=(9, 13), resized=(9, 13)), 4)
        assert known.foreground.int().tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
        assert known.label[1, 1] == 1
        assert known.outline[1, 1].item() == pytest.approx(0.5 / 0.8)
        assert known.outline[0, 0].item() == pytest.approx(0.3 / 0.7)

    def test_areas_are_those_of_the_photo(self) -> None:
        """Everything is taken for the first class; of nine cells of the photo five are of it, two of the other."""
        known = SemanticMap(one_hot(torch.zeros(4, 4, dtype=torch.long), 3), Frame(1, (12, 12), (12, 12)), 4)
        classes = torch.full((4, 4), PADDING)
        classes[:3, :3] = torch.tensor([[0, 0, 0], [0, 0, 1], [1, 2, 2]])
        assert known.areas(classes).tolist() == [[5, 0, 0], [5, 2, 2], [9, 0, 0]]

    def test_the_class_of_a_group_is_that_of_most_and_so_is_its_probability(self) -> None:
        probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1]]).T[:, None]
        known = SemanticMap(probabilities, Frame(1, (4, 16), (4, 16)), 4)
        member = torch.tensor([0, 0, 0, -1])
        groups = shared_out(known, member, torch.zeros(4), torch.ones(1))
        assert groups.label.tolist() == [0]
        assert groups.probability.tolist() == pytest.approx([0.6, 0.6, 0.2, 0.7])


class TestScores:
    groups = Groups(
        member=torch.tensor([0, 0, 1, -1]),
        probability=torch.tensor([0.9, 0.5, 0.8, 0.1]),
        distance=torch.tensor([0.0, 1.0, 2.0, math.inf]),
        label=torch.tensor([0, 1]),
        centre=torch.tensor([0.5, 0.25]),
        quality=torch.tensor([0.3, 0.6]),
    )

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            ("constant", [1, 1]),
            ("semantic", [0.7, 0.8]),
            ("semantic_x_centre", [0.35, 0.2]),
            ("semantic_x_compactness", [0.7 * (1 + math.exp(-0.5)) / 2, 0.8 * math.exp(-2)]),
            ("learned", [0.7 * 0.3, 0.8 * 0.6]),
        ],
    )
    def test_by_hand(self, rule: str, expected: list[float]) -> None:
        assert SCORES[rule](self.groups).tolist() == pytest.approx(expected)

    def test_every_rule_bears_no_groups(self) -> None:
        none, whole = torch.zeros(0), torch.zeros(0, dtype=torch.long)
        for rule in SCORES.values():
            assert rule(Groups(whole, none, none, whole, none, none)).shape == (0,)

    def test_an_unknown_rule_is_refused(self) -> None:
        assert known_rule("semantic") == "semantic"
        with pytest.raises(ConfigError, match="'best'; expected one of constant, semantic"):
            known_rule("best")

    def test_most_cells_say_the_class(self) -> None:
        member, labels = torch.tensor([0, 0, 0, 1, 1, -1]), torch.tensor([2, 1, 2, 1, 0, 2])
        assert majority(member, labels, count=3, classes=3).tolist() == [2, 0, 0]


def test_the_iou_of_a_group_is_that_with_the_object_it_overlaps_most() -> None:
    """Of sixteen cells the first row is one object, the second another; a group has one and a half rows."""
    cells = torch.tensor([[0] * 4, [1] * 4, [-1] * 4, [-1] * 4])
    known = SemanticMap(one_hot(torch.zeros(4, 4, dtype=torch.long), 2), Frame(1, (16, 16), (16, 16)), 4)
    member = torch.tensor([0] * 6 + [1] * 2 + [-1] * 4 + [2] * 4)
    some = torch.ones(16)
    groups = Groups(member, some, some, torch.zeros(3, dtype=torch.long), torch.ones(3))
    assert group_iou(groups, known, cells).tolist() == pytest.approx([4 / 6, 2 / 4, 0])
    assert group_iou(groups, known, torch.full((4, 4), -1)).tolist() == [0, 0, 0]


class TestDrawing:
    known = SemanticMap(one_hot(torch.zeros(16, 16, dtype=torch.long), 2), FRAME, 4)

    def groups(self, *sizes: int) -> Groups:
        """Of so many cells of the 256, row by row; the rest is of none."""
        member = torch.full((256,), -1)
        for number, part in enumerate(torch.arange(sum(sizes)).split(list(sizes))):
            member[part] = number
        some = torch.full((256,), 0.8)
        centre = torch.linspace(0.2, 0.9, len(sizes))
        return Groups(member, some, some, torch.arange(len(sizes)) % 2, centre)

    def test_groups_become_masks_by_descending_score(self) -> None:
        found = drawn(self.groups(64, 32, 16), self.known, "semantic_x_centre", 4, POINT)
        assert found.masks.areas().tolist() == [16 * 16, 32 * 16, 64 * 16]
        assert found.labels.tolist() == [0, 1, 0]
        assert found.scores.tolist() == pytest.approx([0.72, 0.44, 0.16])

    def test_small_groups_poor_ones_and_too_many_go(self) -> None:
        def left(smallest: int, point: OperatingPoint) -> list[int]:
            found = drawn(self.groups(64, 32, 16), self.known, "semantic_x_centre", smallest, point)
            return [area // 16 for area in found.masks.areas().tolist()]

        assert left(17, POINT) == [32, 64]
        assert left(4, replace(POINT, score_threshold=0.3)) == [16, 32]
        assert left(4, replace(POINT, max_instances=1)) == [16]

    def test_nothing(self) -> None:
        none = Groups(
            *[torch.zeros(0, dtype=kind) for kind in (torch.long, torch.float, torch.float, torch.long, torch.float)]
        )
        empty = SemanticMap(one_hot(torch.ones(16, 16, dtype=torch.long), 2), FRAME, 4)
        assert len(drawn(none, empty, "semantic", 4, POINT)) == 0
