from __future__ import annotations

import math

import pytest
import torch

from maskbench.ops.assign import EVERY, Matcher, Sampler
from maskbench.ops.boxes import encode
from maskbench.ops.regions import (
    Regions,
    box_losses,
    detect,
    mask_targets,
    proposal_recall,
    sample,
    without_truth,
)
from maskbench.structures import Frame, Instances, Masks, OperatingPoint

BACKGROUND = 2
HALF = Matcher(0.5, 0.5)


@pytest.fixture
def target() -> Instances:
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 4:24, 4:24] = True
    masks[1, 30:50, 30:60] = True
    return Instances(Masks(masks), Masks(masks).boxes(), torch.tensor([1, 0]), torch.ones(2))


def test_the_truth_is_among_the_regions_or_not(target: Instances) -> None:
    near, far = torch.tensor([[5.0, 5, 25, 25]]), torch.tensor([[40.0, 2, 60, 12]])
    proposals = [torch.cat([far, near])]
    drawn = sample(proposals, [target], HALF, EVERY, BACKGROUND)
    assert drawn.labels[0].tolist() == [1, 0, 1, BACKGROUND]
    assert drawn.truth[0].tolist() == [True, True, False, False]
    assert torch.equal(drawn.boxes[0], torch.cat([target.boxes, near, far]))
    given = sample(proposals, [target], HALF, EVERY, BACKGROUND, with_truth=False)
    assert given.labels[0].tolist() == [1, BACKGROUND]
    assert not given.truth[0].any()
    assert torch.equal(without_truth(drawn.boxes, drawn)[0], given.boxes[0])


def test_positives_of_every_image(target: Instances) -> None:
    proposals = [torch.tensor([[40.0, 2, 60, 12]])] * 2
    positives = sample(proposals, [target, target[:0]], HALF, EVERY, BACKGROUND).positives()
    assert [len(boxes) for boxes in positives.boxes] == [2, 0]
    assert positives.all_labels().tolist() == [1, 0]


def test_a_share_of_positives(target: Instances) -> None:
    around = target.boxes[:1] + torch.randint(-2, 3, (30, 4))
    far = torch.tensor([[40.0, 2, 60, 12]]).repeat(30, 1)
    drawn = sample([torch.cat([around, far])], [target], HALF, Sampler(8, 0.25), BACKGROUND)
    assert (len(drawn.boxes[0]), len(drawn.matched[0])) == (8, 2)


@pytest.mark.parametrize("boxes", [1, 2])
def test_losses_are_divided_by_all_regions(target: Instances, boxes: int) -> None:
    """Two true boxes and two regions of background; deltas off by 0.1 cost 0.4 each, even logits log 3."""
    far = torch.tensor([[40.0, 2, 60, 12], [2, 40, 12, 60]])
    regions = sample([far], [target], HALF, EVERY, BACKGROUND)
    losses = box_losses(torch.zeros(4, 3), torch.full((4, boxes, 4), 0.1), regions, [target], (10, 5))
    assert losses["class"].item() == pytest.approx(math.log(3))
    assert losses["box"].item() == pytest.approx(0.4 * 2 / 4)
    smooth = box_losses(torch.zeros(4, 3), torch.full((4, boxes, 4), 0.1), regions, [target], (10, 5), beta=1.0)
    assert smooth["box"].item() == pytest.approx(0.5 * 0.01 * 4 * 2 / 4)


def test_each_class_has_its_own_box(target: Instances) -> None:
    moved = target.boxes + torch.tensor([1.0, 2, 1, 2])
    regions = Regions([moved], [target.labels], [torch.arange(2)], [torch.zeros(2, dtype=torch.bool)])
    deltas = torch.full((2, 2, 4), 7.0)
    deltas[torch.arange(2), target.labels] = encode(moved, target.boxes, (10, 5))
    losses = box_losses(torch.zeros(2, 3), deltas, regions, [target], (10, 5))
    assert losses["box"].item() == pytest.approx(0, abs=1e-5)


def test_mask_targets_lie_in_their_own_boxes(target: Instances) -> None:
    half = torch.tensor([[30.0, 30, 60, 70]])  # of the second object: its upper half
    boxes = torch.cat([target.boxes[:1], half])
    regions = Regions([boxes], [target.labels], [torch.arange(2)], [torch.zeros(2, dtype=torch.bool)])
    wanted = mask_targets(regions, [target], 4)
    assert wanted[0].all()
    assert wanted[1].tolist() == [[True] * 4] * 2 + [[False] * 4] * 2


class TestDetect:
    frame = Frame(1, photo=(100, 100), resized=(50, 50))
    boxes = torch.tensor([[[0.0, 0, 20, 20]], [[1, 0, 21, 20]], [[30, 30, 70, 45]]])
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.6, 0.3]])

    def test_one_box_for_all_classes(self) -> None:
        point = OperatingPoint(score_threshold=0.06, candidates=None, max_instances=10)
        (found,) = detect(self.boxes, self.probabilities, [3], [self.frame], point, 0.5)
        assert found.labels.tolist() == [0, 1, 1, 0]
        assert found.scores.tolist() == pytest.approx([0.9, 0.6, 0.1, 0.1])
        assert found.boxes[1].tolist() == [30, 30, 50, 45]  # cut to the frame

    def test_images_do_not_meet(self) -> None:
        point = OperatingPoint(score_threshold=0.5, candidates=None, max_instances=10)
        both = detect(self.boxes, self.probabilities, [1, 2], [self.frame] * 2, point, 0.5)
        assert [image.labels.tolist() for image in both] == [[0], [0, 1]]
        assert len(detect(self.boxes[:0], self.probabilities[:0], [0], [self.frame], point, 0.5)[0].labels) == 0

    def test_what_lies_outside_is_nothing_and_what_is_thin_can_be_dropped(self) -> None:
        boxes = torch.tensor([[[60.0, 10, 90, 20]], [[10, 10, 10.005, 20]]])
        point = OperatingPoint(score_threshold=0.5, candidates=None, max_instances=10)
        for smallest, left in ((0.0, 1), (0.01, 0)):
            (found,) = detect(boxes, self.probabilities[:2], [2], [self.frame], point, 0.5, smallest)
            assert len(found.labels) == left


def test_recall_counts_true_boxes_that_a_good_enough_proposal_overlaps() -> None:
    def truth(*boxes: list[float]) -> Instances:
        return Instances(
            Masks(torch.zeros(len(boxes), 8, 8, dtype=torch.bool)),
            torch.tensor(boxes).view(-1, 4),
            torch.zeros(len(boxes), dtype=torch.long),
            torch.ones(len(boxes)),
        )

    # the second overlaps by half, just enough
    first = torch.tensor([[50.0, 50, 60, 60], [0, 0, 10, 5], [0, 0, 10, 10]])
    targets = [truth([0.0, 0, 10, 10], [20.0, 20, 30, 30]), truth([0.0, 0, 10, 10]), truth()]
    found = proposal_recall([first, first[:0], first], targets, most=9, counts=(1, 2, 20, 100))
    stages = [f"a box among the best {count} proposals" for count in (1, 2, 9)]
    assert [list(image) for image in found] == [stages] * 3
    assert [list(image.values()) for image in found] == [[(0, 2), (1, 2), (1, 2)], [(0, 1)] * 3, [(0, 0)] * 3]
