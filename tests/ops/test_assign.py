from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from maskbench.ops.assign import IGNORED, NEGATIVE, Matcher, Sampler


def boxes(*rows: tuple[float, float, float, float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


class TestMatcher:
    truth = boxes((0, 0, 10, 10), (100, 0, 110, 10))

    def test_positive_ignored_and_negative(self) -> None:
        # Overlaps with the first box: 0.8, exactly the bounds of 0.5 and 0.2, and 0.1.
        rows = boxes((0, 0, 8, 10), (0, 0, 5, 10), (0, 0, 2, 10), (0, 0, 1, 10), (100, 0, 110, 9))
        assert Matcher(0.5, 0.2)(rows, self.truth).tolist() == [0, 0, IGNORED, NEGATIVE, 1]

    def test_a_box_takes_what_it_overlaps_most(self) -> None:
        rows = boxes((0, 0, 4, 10), (0, 0, 4, 10), (0, 0, 3, 10), (100, 0, 101, 10))
        assert Matcher(0.7, 0.3, low_quality=0.3)(rows, self.truth).tolist() == [0, 0, IGNORED, NEGATIVE]
        assert Matcher(0.7, 0.3)(rows, self.truth).tolist() == [IGNORED, IGNORED, IGNORED, NEGATIVE]

    def test_of_two_boxes_that_take_a_row_the_last_has_it(self) -> None:
        rows = boxes((0, 0, 10, 10))
        truth = boxes((0, 0, 10, 9), (0, 0, 10, 5), (50, 50, 60, 60))  # overlaps of 0.9 and 0.5
        assert Matcher(0.7, 0.3, low_quality=0.3)(rows, truth).tolist() == [1]
        assert Matcher(0.7, 0.3)(rows, truth).tolist() == [0]

    def test_it_is_the_rule_in_a_loop(self) -> None:
        corner = torch.rand(300, 2) * 80
        rows = torch.cat([corner, corner + 5 + torch.rand(300, 2) * 30], dim=1)
        truth, overlap = rows[::60] + torch.randn(5, 4), None
        overlap = box_iou(rows, truth)
        expected = []
        for row in overlap:
            best = row.max()
            expected.append(int(row.argmax()) if best >= 0.6 else IGNORED if best >= 0.4 else NEGATIVE)
        for box in range(5):
            for row in range(300):
                if overlap[row, box] == overlap[:, box].max() and overlap[row, box] >= 0.2:
                    expected[row] = box
        assert Matcher(0.6, 0.4, low_quality=0.2)(rows, truth).tolist() == expected

    def test_nothing(self) -> None:
        matcher = Matcher(0.7, 0.3, low_quality=0.3)
        assert matcher(self.truth, boxes()).tolist() == [NEGATIVE, NEGATIVE]
        assert matcher(boxes(), self.truth).tolist() == []


class TestSampler:
    @staticmethod
    def matches(positive: int, negative: int, ignored: int = 50) -> Tensor:
        rows = torch.tensor([3] * positive + [NEGATIVE] * negative + [IGNORED] * ignored)
        return rows[torch.randperm(len(rows))]

    @pytest.mark.parametrize(
        ("positive", "negative", "drawn"),
        [
            (100, 1000, (16, 48)),
            (5, 1000, (5, 59)),
            (100, 20, (16, 20)),
            (0, 1000, (0, 64)),
            (3, 2, (3, 2)),
            (0, 0, (0, 0)),
        ],
    )
    def test_counts(self, positive: int, negative: int, drawn: tuple[int, int]) -> None:
        matches = self.matches(positive, negative)
        found = Sampler(64, 0.25)(matches)
        assert (len(found[0]), len(found[1])) == drawn
        assert (matches[found[0]] >= 0).all()
        assert (matches[found[1]] == NEGATIVE).all()
        assert all(len(rows.unique()) == len(rows) for rows in found)

    def test_draws_differ(self) -> None:
        matches = self.matches(100, 1000)
        first, second = Sampler(64, 0.5)(matches), Sampler(64, 0.5)(matches)
        assert set(first[0].tolist()) != set(second[0].tolist())


def test_a_row_that_a_box_claims_learns_that_box_or_the_one_it_overlaps_most() -> None:
    """The small box overlaps no row more than the large one's, and claims it all the same."""
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 8, 8]])
    rows = torch.tensor([[0.0, 0, 20, 18], [40, 40, 60, 60]])
    for takes, expected in ((True, [1, NEGATIVE]), (False, [0, NEGATIVE])):
        assert Matcher(0.7, 0.3, low_quality=0.1, takes=takes)(rows, boxes).tolist() == expected
