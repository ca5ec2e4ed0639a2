from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.nn.cascade import BoxCascade, average_logits, average_probabilities
from maskbench.ops.assign import EVERY
from maskbench.ops.boxes import encode
from maskbench.structures import Frame, Instances, Masks

WEIGHTS = ((10.0, 5.0), (20.0, 10.0))
FRAME = Frame(1, photo=(64, 64), resized=(64, 64))


@pytest.fixture
def cascade() -> BoxCascade:
    return BoxCascade(4, 2, overlaps=(0.5, 0.7), delta_weights=WEIGHTS, width=8)


@pytest.fixture
def target() -> Instances:
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, 10:30, 10:30] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.tensor([1]), torch.ones(1))


def test_a_later_stage_asks_for_more_overlap(cascade: BoxCascade, target: Instances) -> None:
    shifted = torch.tensor([[14.0, 10, 34, 30]])  # overlap 16 / 24
    labels = [
        cascade.sample(stage, [shifted], [target], EVERY, with_truth=False).labels[0].tolist() for stage in (0, 1)
    ]
    assert labels == [[1], [2]]


def test_each_stage_has_its_own_measure_of_deltas(cascade: BoxCascade, target: Instances) -> None:
    boxes = [torch.tensor([[11.0, 11, 32, 30]])]
    for stage, weights in enumerate(WEIGHTS):
        deltas = encode(boxes[0], target.boxes, weights)[:, None]
        (moved,) = cascade.refine(stage, boxes, deltas, [FRAME])
        torch.testing.assert_close(moved, target.boxes)
        regions = cascade.sample(stage, boxes, [target], EVERY, with_truth=False)
        cost = cascade.losses(stage, torch.zeros(1, 3), deltas, regions, [target])["box"].item()
        assert len(regions.matched[0]) == 1
        assert cost == pytest.approx(0, abs=1e-5)


def test_refined_boxes_are_cut_and_carry_no_gradient(cascade: BoxCascade) -> None:
    deltas = torch.full((1, 1, 4), 20.0, requires_grad=True)
    (moved,) = cascade.refine(0, [torch.tensor([[14.0, 12, 36, 30]])], deltas, [FRAME])
    assert not moved.requires_grad
    assert moved.max() <= 64


def test_the_last_stages_boxes_and_everyones_classes(cascade: BoxCascade) -> None:
    for stage, head in enumerate(cascade.heads):
        torch.nn.init.zeros_(head.regress.weight)
        head.regress.bias.data = torch.tensor([WEIGHTS[stage][0] * 0.5, 0, 0, 0])  # half a width to the right
        torch.nn.init.zeros_(head.classify.weight)
        head.classify.bias.data = torch.tensor([4.0 * stage, 0, 0])
    seen: list[Tensor] = []

    def pool(boxes: list[Tensor]) -> Tensor:
        seen.extend(boxes)
        return torch.zeros(len(boxes[0]), 4, 7, 7)

    boxes, probabilities = cascade.predict(pool, [torch.tensor([[0.0, 0, 10, 10]])], [FRAME], average_logits)
    assert [box.tolist() for box in (*seen, *boxes)] == [[[0, 0, 10, 10]], [[5, 0, 15, 10]], [[10, 0, 20, 10]]]
    torch.testing.assert_close(probabilities, torch.tensor([[2.0, 0, 0]]).softmax(dim=1))


def test_the_two_averages_differ() -> None:
    logits = [torch.tensor([[0.0, 4.0]]), torch.tensor([[0.0, -2.0]])]
    assert average_logits(logits)[0, 1].item() == pytest.approx(torch.tensor(1.0).sigmoid().item())
    expected = (torch.tensor(4.0).sigmoid() + torch.tensor(-2.0).sigmoid()) / 2
    assert average_probabilities(logits)[0, 1].item() == pytest.approx(expected.item())


@pytest.mark.parametrize("overlaps", [(), (0.5, 0.6, 0.7)])
def test_as_many_stages_as_there_are_weights(overlaps: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="one to 2 stages"):
        BoxCascade(4, 2, overlaps=overlaps, delta_weights=WEIGHTS)
