from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.ops import suppress
from maskbench.ops.suppress import (
    Candidates,
    Selection,
    above,
    best,
    mask_nms,
    matrix_nms,
    points_nms,
    ranked,
    survivors,
)
from maskbench.structures import OperatingPoint


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


class TestMaskNMS:
    @pytest.mark.parametrize("overlap", [0.2, 0.5, 0.8])
    def test_it_is_the_loop_over_one_mask_after_the_other(self, overlap: float) -> None:
        masks, labels, _ = overlapping(40)
        kept: list[int] = []
        for row in range(40):
            rivals = [masks[other] for other in kept if labels[other] == labels[row]]
            if all((masks[row] & rival).sum() <= overlap * (masks[row] | rival).sum() for rival in rivals):
                kept.append(row)
        assert mask_nms(masks, labels, overlap).nonzero()[:, 0].tolist() == kept

    def test_what_has_gone_takes_no_other_with_it(self) -> None:
        """Of a chain of four, each on two thirds of the one before, the second and the fourth go."""
        masks = torch.zeros(4, 1, 11, dtype=torch.bool)
        for start, mask in enumerate(masks):
            mask[0, start : start + 5] = True
        assert mask_nms(masks, torch.zeros(4, dtype=torch.long), 0.5).tolist() == [True, False, True, False]
        assert mask_nms(masks, torch.tensor([0, 1, 0, 1]), 0.5).all()

    def test_nothing(self) -> None:
        masks, labels, _ = overlapping(0)
        assert mask_nms(masks, labels).tolist() == []


def test_survivors_do_not_conflict_and_every_other_row_conflicts_with_one_before_it() -> None:
    conflicts = torch.rand(60, 60) < 0.1
    kept = survivors(conflicts)
    assert not (conflicts.tril(-1) & kept[:, None] & kept).any()
    assert torch.equal((conflicts.tril(-1) & kept).any(dim=1), ~kept)


class TestSelection:
    """Four candidates of one row of a map: two alike, one of another place, one of two cells alone."""

    maps = torch.tensor(
        [
            [0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1],
            [0.8, 0.8, 0.8, 0.8, 0.1, 0.1, 0.1, 0.1],
            [0.1, 0.1, 0.1, 0.4, 0.6, 0.6, 0.6, 0.5],
            [0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        ]
    )[:, None]
    candidates = Candidates(torch.tensor([7, 3, 5, 1]), torch.tensor([0, 0, 0, 1]), torch.tensor([0.9, 0.8, 0.7, 0.6]))

    def select(
        self, point: OperatingPoint | None = None, stride: int = 2, **settings: str | float
    ) -> tuple[list[int], list[float]]:
        select, strides = Selection(**settings), torch.full((4,), stride)
        found = select(self.candidates, strides, (1, 8), lambda rows: self.maps[rows], point or OperatingPoint(0.1))
        return found[0].tolist(), found[1].tolist()

    def test_scores_are_weighed_by_the_mean_probability_inside_the_mask(self) -> None:
        rows, scores = self.select(suppression="mask", overlap=1.0)
        assert rows == [0, 1, 2]  # the last has two cells, and the stride is two
        assert scores == pytest.approx([0.9 * 0.9, 0.8 * 0.8, 0.7 * 0.6])
        assert self.select(stride=1, suppression="mask", overlap=1.0)[0] == [0, 1, 3, 2]

    def test_matrix_nms_and_what_must_be_left_of_a_score(self) -> None:
        rows, scores = self.select()
        assert rows == [0, 2, 1]
        assert scores == pytest.approx([0.81, 0.42, 0.64 * math.exp(-2)])
        assert self.select(sigma=1.0)[1] == pytest.approx([0.81, 0.42, 0.64 * math.exp(-1)])
        assert self.select(decayed=1.0)[0] == [0, 2]

    def test_nms_on_masks(self) -> None:
        rows, scores = self.select(suppression="mask")
        assert rows == [0, 2]
        assert scores == pytest.approx([0.81, 0.42])
        assert self.select(point=OperatingPoint(0.0), suppression="mask")[0] == [0, 2]

    def test_candidates_and_instances_are_limited(self) -> None:
        assert self.select(point=OperatingPoint(0.1, candidates=2))[0] == [0, 1]
        assert self.select(point=OperatingPoint(0.1, max_instances=2))[0] == [0, 2]

    def test_chunks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected, painted = self.select(), []
        monkeypatch.setitem(suppress.CHUNK_CELLS, "cpu", 3 * 8)

        def paint(rows: Tensor) -> Tensor:
            painted.append(rows.tolist())
            return self.maps[rows]

        found = Selection()(self.candidates, torch.full((4,), 2), (1, 8), paint, OperatingPoint(0.1))
        assert (found[0].tolist(), found[1].tolist()) == expected
        assert painted == [[0, 1, 2], [3]]

    def test_nothing(self) -> None:
        nothing = Candidates.of(torch.zeros(5, 2), OperatingPoint(0.1))
        for suppression in ("matrix", "mask"):
            select = Selection(suppression)
            rows, scores = select(nothing, nothing.cells, (1, 8), lambda rows: self.maps[rows], OperatingPoint(0.1))
            assert (rows.tolist(), scores.tolist()) == ([], [])

    def test_a_suppression_that_nobody_knows(self) -> None:
        with pytest.raises(ConfigError, match=r"suppression='soft': expected one of matrix, mask"):
            Selection("soft")


def test_candidates_are_the_cells_above_the_threshold_best_first() -> None:
    scores = torch.tensor([[0.3, 0.05], [0.9, 0.2], [0.1, 0.6]])
    found = Candidates.of(scores, OperatingPoint(score_threshold=0.1))
    assert (found.cells.tolist(), found.labels.tolist()) == ([1, 2, 0, 1], [0, 1, 0, 1])
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.3, 0.2]))
    few = Candidates.of(scores, OperatingPoint(score_threshold=0.0, candidates=1))
    assert few.cells.tolist() == [1, 2]  # twice as many as enter suppression


def test_best_keeps_the_order_of_equals() -> None:
    scores = torch.tensor([0.2, 0.7, 0.2, 0.9])
    assert best(scores, None).tolist() == [3, 1, 0, 2]
    assert best(scores, 2).tolist() == [3, 1]
    assert best(scores[:0], 5).tolist() == []


def test_above_means_greater() -> None:
    scores = torch.tensor([[0.0, 0.05], [0.06, 0.04]])
    assert above(scores, 0.05).tolist() == [[1, 0]]
    assert above(scores, 0.0).tolist() == [[0, 1], [1, 0], [1, 1]]


def test_the_largest_scores_are_ranked_without_what_is_low_nothing_or_no_number() -> None:
    scores = torch.tensor([0.5, torch.nan, 0.9, 0.0, 0.5, 0.1])
    for count, lowest, expected in ((None, 0.0, [2, 0, 4, 5]), (None, 0.2, [2, 0, 4]), (2, 0.0, [2, 0]), (9, 0.95, [])):
        values, rows = ranked(scores, count, lowest)
        assert rows.tolist() == expected
        assert torch.equal(values, scores[rows])
    assert ranked(scores[:0], 3)[1].tolist() == []
