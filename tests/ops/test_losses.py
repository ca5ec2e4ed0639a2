from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from maskbench.ops.losses import Reduction, dice, focal, lovasz_hinge, pull_push


class TestDice:
    def test_by_hand(self) -> None:
        probabilities = torch.tensor([[[0.5, 1.0], [0.0, 0.5]]])
        targets = torch.tensor([[[True, True], [False, False]]])
        # 2 · 1.5 over (0.25 + 1 + 0.25) + 2, and 0.001 on each sum.
        assert dice(probabilities, targets).item() == pytest.approx(1 - 3 / 3.502)

    def test_the_truth_costs_nothing_and_its_opposite_everything(self) -> None:
        targets = torch.rand(3, 8, 8) > 0.5
        torch.testing.assert_close(dice(targets.float(), targets), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(dice((~targets).float(), targets), torch.ones(3))

    def test_nothing(self) -> None:
        assert dice(torch.zeros(0, 8, 8), torch.zeros(0, 8, 8, dtype=torch.bool)).shape == (0,)
        assert dice(torch.zeros(1, 8), torch.zeros(1, 8, dtype=torch.bool)).item() == 1  # finite for an empty mask


class TestFocal:
    def test_by_hand(self) -> None:
        """A present class: −α (1−p)² log p. An absent one: −(1−α) p² log(1−p)."""
        p = torch.tensor([[0.8, 0.3], [0.1, 0.6]])
        logits = (p / (1 - p)).log()
        present = -0.25 * (0.2**2) * math.log(0.8)
        absent = [-0.75 * value**2 * math.log(1 - value) for value in (0.3, 0.1, 0.6)]
        assert focal(logits, torch.tensor([0, 2])).item() == pytest.approx(present + sum(absent), rel=1e-5)

    def test_its_numbers_can_be_chosen(self) -> None:
        found = focal(torch.zeros(1, 1), torch.tensor([0]), alpha=0.5, gamma=0.0).item()
        assert found == pytest.approx(0.5 * math.log(2))

    def test_nothing(self) -> None:
        assert focal(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).item() == 0


class TestPullPush:
    # Two instances of two pixels each: means (1, 0) and (3, 0), every pixel 1 from its mean.
    embeddings = torch.tensor([[0.0, 0], [2, 0], [3, 1], [3, -1]])
    instance = torch.tensor([0, 0, 1, 1])
    same, different = torch.tensor([5, 5]), torch.tensor([5, 6])

    def test_by_hand(self) -> None:
        pull, push, regulariser = pull_push(self.embeddings, self.instance, self.same, 0.5, 1.5)
        assert pull.item() == pytest.approx((1 - 0.5) ** 2)
        assert push.item() == pytest.approx((2 * 1.5 - 2) ** 2)  # the same for both ordered pairs
        assert regulariser.item() == pytest.approx((1 + 3) / 2)

    def test_within_the_margins_nothing_moves(self) -> None:
        pull, push, _ = pull_push(self.embeddings, self.instance, self.same, 1.0, 1.0)
        assert (pull.item(), push.item()) == (0, 0)

    def test_classes_are_not_pushed_apart(self) -> None:
        assert pull_push(self.embeddings, self.instance, self.different, 0.5, 1.5)[1].item() == 0

    def test_one_instance_has_nobody_to_push(self) -> None:
        embeddings, instance = self.embeddings[:2], self.instance[:2]
        pull, push, regulariser = pull_push(embeddings, instance, self.same[:1], 0.5, 1.5)
        assert [pull.item(), push.item(), regulariser.item()] == pytest.approx([0.25, 0, 1])

    def test_each_instance_counts_alike(self) -> None:
        """A hundred pixels more of an instance, as far from its mean, change nothing."""
        embeddings = torch.cat([self.embeddings, self.embeddings[:2].repeat(50, 1)])
        instance = torch.cat([self.instance, self.instance[:2].repeat(50)])
        found = pull_push(embeddings, instance, self.same, 0.5, 1.5)
        torch.testing.assert_close(found, pull_push(self.embeddings, self.instance, self.same, 0.5, 1.5))

    def test_an_instance_without_pixels_does_not_count(self) -> None:
        labels = torch.tensor([5, 5, 5])
        found = pull_push(self.embeddings, self.instance, labels, 0.5, 1.5)
        torch.testing.assert_close(found, pull_push(self.embeddings, self.instance, self.same, 0.5, 1.5))

    def test_the_order_of_pixels_and_instances_does_not_matter(self) -> None:
        embeddings, instance = torch.randn(40, 4), torch.arange(40) % 5
        labels, order, renamed = torch.tensor([0, 1, 0, 1, 1]), torch.randperm(40), torch.randperm(5)
        there = torch.empty(5, dtype=torch.long).index_copy(0, renamed, labels)
        found = pull_push(embeddings[order], renamed[instance[order]], there, 0.5, 1.5)
        torch.testing.assert_close(found, pull_push(embeddings, instance, labels, 0.5, 1.5))

    def test_coinciding_embeddings_have_finite_gradients(self) -> None:
        embeddings = torch.zeros(6, 3, requires_grad=True)
        torch.stack(pull_push(embeddings, torch.arange(6) % 2, self.same, 0.5, 1.5)).sum().backward()
        assert embeddings.grad is not None
        assert embeddings.grad.isfinite().all()

    @staticmethod
    def one_by_one(embeddings: Tensor, instance: Tensor, labels: Tensor, reduction: str) -> tuple[Tensor, ...]:
        """Equations 1 to 3 for one instance and one pair after the other, with the margins 0.5 and 1.5."""
        nothing = embeddings.sum() * 0
        own = {number: embeddings[instance == number] for number in instance.unique().tolist()}
        means = {number: points.mean(dim=0) for number, points in own.items()}
        outside = {
            number: torch.stack([(point - means[number]).norm().sub(0.5).clamp(min=0) ** 2 for point in points])
            for number, points in own.items()
        }
        pulls = [apart.mean() for apart in outside.values()]
        pull = {
            "paper": lambda: sum(pulls, nothing) / max(1, len(pulls)),
            "authors": lambda: sum(pulls, nothing),
            "pixels": lambda: torch.cat([*outside.values(), nothing[None]]).sum() / max(1, len(embeddings)),
        }[reduction]()
        push, ordered = nothing, 0
        for one, mean in means.items():
            rivals = [other for other in means if other != one and labels[other] == labels[one]]
            close = [(3.0 - (mean - means[other]).norm()).clamp(min=0) ** 2 for other in rivals]
            push = push + sum(close, nothing) / (2 * max(1, len(rivals)) if reduction == "authors" else 1)
            ordered += len(rivals)
        push = push if reduction == "authors" else push / max(1, ordered)
        length = sum((mean.norm() for mean in means.values()), nothing) / max(1, len(means))
        return pull, push, nothing if reduction == "authors" else length

    @pytest.mark.parametrize("reduction", get_args(Reduction))
    @pytest.mark.parametrize("count", [0, 1, 300])
    def test_values_and_gradients_are_those_of_a_plain_loop(self, count: int, reduction: str) -> None:
        torch.manual_seed(0)
        embeddings = torch.randn(4 * count, 8, dtype=torch.float64, requires_grad=True)
        instance, labels = torch.randint(max(1, count), (4 * count,)), torch.randint(3, (count,))
        found = pull_push(embeddings, instance, labels, 0.5, 1.5, reduction)
        expected = self.one_by_one(embeddings, instance, labels, reduction)
        for ours, plain in zip(found, expected, strict=True):
            assert ours.item() == pytest.approx(plain.item(), abs=1e-6, rel=1e-6)
            gradients = [torch.autograd.grad(term, embeddings, retain_graph=True)[0] for term in (ours, plain)]
            torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-6)

    def test_nothing(self) -> None:
        none = torch.zeros(0, dtype=torch.long)
        assert [term.item() for term in pull_push(torch.zeros(0, 4), none, none, 0.5, 1.5)] == [0, 0, 0]


class TestLovaszHinge:
    @staticmethod
    def of_one(logits: Tensor, truth: Tensor) -> Tensor:
        """Eq. 9 of Berman et al. as it stands: the Jaccard loss of ever more of the worst cells."""
        errors = 1 - logits * (2 * truth.double() - 1)
        order = errors.argsort(descending=True)
        total, before = errors.new_zeros(()), 0.0
        for last in range(1, len(order) + 1):
            wrong = torch.zeros_like(truth)
            wrong[order[:last]] = True
            kept, seen = (truth & ~wrong).sum(), (truth | wrong).sum()
            lost = 1 - kept.item() / seen.item()
            total = total + errors[order[last - 1]].clamp(min=0) * (lost - before)
            before = lost
        return total

    def test_equals_the_definition_of_each_mask(self) -> None:
        torch.manual_seed(0)
        group = torch.tensor([2, 0, 0, 2, 2, 0, 4, 2, 0, 4, 4, 4])
        logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
        truth = torch.rand(12) > 0.4
        truth[group == 4] = torch.tensor([True, False, False, True])
        found = lovasz_hinge(logits, truth, group, 5)
        expected = [self.of_one(logits[group == n], truth[group == n]) if n in (0, 2, 4) else None for n in range(5)]
        for number, loss in enumerate(expected):
            assert found[number].item() == pytest.approx(0.0 if loss is None else loss.item(), abs=1e-9)
        (gradient,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
        (wanted,) = torch.autograd.grad(torch.stack([loss for loss in expected if loss is not None]).sum(), logits)
        torch.testing.assert_close(gradient, wanted)

    def test_right_and_sure_costs_nothing_and_wrong_and_sure_costs_two(self) -> None:
        truth = torch.tensor([True, True, False, False])
        sure = 2 * truth.float() - 1
        assert lovasz_hinge(sure, truth, torch.zeros(4, dtype=torch.long), 1).tolist() == [0]
        assert lovasz_hinge(-sure, truth, torch.zeros(4, dtype=torch.long), 1).tolist() == [2]

    def test_background_that_nobody_takes_may_be_left_out(self) -> None:
        logits, truth = torch.tensor([0.3, -0.2, 0.9, -1.0, -1.0]), torch.tensor([True, True, False, False, False])
        group = torch.zeros(5, dtype=torch.long)
        assert lovasz_hinge(logits, truth, group, 1) == lovasz_hinge(logits[:3], truth[:3], group[:3], 1)

    def test_no_cell_at_all(self) -> None:
        nothing = torch.zeros(0)
        assert lovasz_hinge(nothing, nothing.bool(), nothing.long(), 2).tolist() == [0, 0]
