from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskbench.ops.suppress import above, best, matrix_nms, points_nms


def overlapping(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bands that overlap each other, of two classes, by descending score."""
    starts = torch.randint(0, 20, (count, 1, 1))
    column = torch.arange(40).expand(count, 4, 40)
    masks = (column >= starts) & (column < starts + torch.randint(5, 20, (count, 1, 1)))
    return masks, torch.randint(0, 2, (count,)), torch.rand(count).sort(descending=True).values


class TestPointsNMS:
    def test_the_largest_of_the_window_that_ends_at_it_stays(self) -> None:
        scores = torch.tensor([[0.1, 0.5, 0.4], [0.3, 0.2, 0.6], [0.3, 0.7, 0.1]])
        expected = [[0.1, 0.5, 0], [0.3, 0, 0.6], [0.3, 0.7, 0]]
        torch.testing.assert_close(points_nms(scores[None, None])[0, 0], torch.tensor(expected))

    def test_classes_and_images_do_not_meet(self) -> None:
        scores = torch.rand(2, 3, 5, 6)
        alone = torch.stack([torch.stack([points_nms(one[None, None])[0, 0] for one in image]) for image in scores])
        assert torch.equal(points_nms(scores), alone)


class TestMatrixNMS:
    def test_it_is_the_papers_equation(self) -> None:
        masks, labels, scores = overlapping(12)
        iou = [[((a & b).sum() / (a | b).sum()).item() for b in masks] for a in masks]
        for sigma in (2.0, 0.5):
            expected = []
            for j in range(12):
                better = [i for i in range(j) if labels[i] == labels[j]]
                decays = []
                for i in better:
                    own = max([iou[k][i] for k in range(i) if labels[k] == labels[i]], default=0.0)
                    decays.append(math.exp(-sigma * iou[i][j] ** 2) / math.exp(-sigma * own**2))
                expected.append(scores[j].item() * min([1.0, *decays]))
            found = matrix_nms(masks, labels, scores, sigma)
            torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-6)

    def test_a_duplicate_decays_and_a_mask_apart_does_not(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        masks[:2, :2], masks[2, 2:] = True, True
        scores = matrix_nms(masks, torch.zeros(3, dtype=torch.long), torch.tensor([0.9, 0.8, 0.7]))
        torch.testing.assert_close(scores, torch.tensor([0.9, 0.8 * math.exp(-2), 0.7]))

    def test_another_class_is_left_alone(self) -> None:
        masks = torch.ones(2, 4, 4, dtype=torch.bool)
        scores = torch.tensor([0.9, 0.8])
        assert torch.equal(matrix_nms(masks, torch.tensor([0, 1]), scores), scores)

    @pytest.mark.parametrize("count", [0, 1])
    def test_nothing_and_one(self, count: int) -> None:
        masks, labels, scores = overlapping(count)
        assert torch.equal(matrix_nms(masks, labels, scores), scores)


def test_best_keeps_the_order_of_equals() -> None:
    scores = torch.tensor([0.2, 0.7, 0.2, 0.9])
    assert best(scores, None).tolist() == [3, 1, 0, 2]
    assert best(scores, 2).tolist() == [3, 1]
    assert best(scores[:0], 5).tolist() == []


def test_above_means_greater() -> None:
    scores = torch.tensor([[0.0, 0.05], [0.06, 0.04]])
    assert above(scores, 0.05).tolist() == [[1, 0]]
    assert above(scores, 0.0).tolist() == [[0, 1], [1, 0], [1, 1]]
