from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from maskbench.nn.rpn import RPN, RPNOutput
from maskbench.ops import boxes as box_ops
from maskbench.ops.assign import IGNORED
from maskbench.structures import Frame, Instances, Masks

STRIDES = (4, 8, 16)
FRAMES = (Frame(1, photo=(128, 192), resized=(64, 96)), Frame(2, photo=(24, 35), resized=(48, 70)))


@pytest.fixture
def rpn() -> RPN:
    return RPN(6, STRIDES, scales=(2.0,), pre_nms=(60, 40), post_nms=(30, 20))


def features() -> list[Tensor]:
    return [torch.randn(2, 6, 64 // stride, 96 // stride) for stride in STRIDES]


def truth(*boxes: tuple[int, int, int, int]) -> Instances:
    masks = torch.zeros(len(boxes), 64, 96, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    labels = torch.zeros(len(boxes), dtype=torch.long)
    return Instances(Masks(masks), Masks(masks).boxes(), labels, torch.ones(len(boxes)))


def answer(rpn: RPN, targets: list[Instances]) -> RPNOutput:
    """The output that says the truth: every positive anchor is one, and moves onto its box."""
    output = rpn(features())
    sizes = [len(level) for level in output.anchors]
    anchors = torch.cat(output.anchors)
    logits, deltas = [], []
    for target in targets:
        matches = rpn.matcher(anchors, target.boxes)
        positive = matches >= 0
        logits.append(torch.where(positive, 12.0, -12.0))
        moved = torch.zeros(len(anchors), 4)
        moved[positive] = box_ops.encode(anchors[positive], target.boxes[matches[positive]])
        deltas.append(moved)
    return RPNOutput(
        list(torch.stack(logits).split(sizes, dim=1)), list(torch.stack(deltas).split(sizes, dim=1)), output.anchors
    )


def says(rpn: RPN, output: RPNOutput) -> None:
    """From now on the network says this, wherever it is asked."""
    logits, deltas = torch.cat(output.logits, dim=1).flatten(), torch.cat(output.deltas, dim=1).flatten(0, 1)
    rpn.at = lambda features, numbers: (logits[numbers], deltas[numbers])  # type: ignore[method-assign]


class TestAnchors:
    def test_by_hand(self, rpn: RPN) -> None:
        anchors = rpn.anchors(2, 3, 8).view(2, 3, 3, 4)
        half, long, short = 8.0, 8 * math.sqrt(2), 8 / math.sqrt(2)  # of a side of 2 strides; area 256 for every ratio
        expected = torch.tensor(
            [[-long, -short, long, short], [-half, -half, half, half], [-short, -long, short, long]]
        )
        torch.testing.assert_close(anchors[0, 0], expected)
        torch.testing.assert_close(anchors[1, 2], expected + torch.tensor([16, 8, 16, 8]))

    def test_sides_can_be_whole_pixels(self) -> None:
        anchors = RPN(6, STRIDES, scales=(2.0,), rounded=True).anchors(1, 1, 8)
        assert anchors.tolist() == [[-11, -6, 11, 6], [-8, -8, 8, 8], [-6, -11, 6, 11]]

    def test_one_for_each_output(self, rpn: RPN) -> None:
        output = rpn(features())
        counts = [3 * (64 // stride) * (96 // stride) for stride in STRIDES]
        assert [tuple(level.shape) for level in output.logits] == [(2, count) for count in counts]
        assert [tuple(level.shape) for level in output.deltas] == [(2, count, 4) for count in counts]
        assert [tuple(level.shape) for level in output.anchors] == [(count, 4) for count in counts]

    def test_every_scale_comes_in_every_ratio(self) -> None:
        rpn = RPN(6, STRIDES, scales=(2.0, 4.0), ratios=(0.5, 1.0))
        left, top, right, bottom = rpn.anchors(1, 1, 8).T
        torch.testing.assert_close((right - left) * (bottom - top), torch.tensor([16.0, 32.0, 16.0, 32.0]) ** 2)
        torch.testing.assert_close((bottom - top) / (right - left), torch.tensor([0.5, 0.5, 1.0, 1.0]))
        assert [level.shape[0] for level in rpn([torch.zeros(1, 6, 2, 2)] * len(STRIDES)).anchors] == [16] * len(
            STRIDES
        )

    def test_an_output_belongs_to_the_anchor_of_its_cell(self, rpn: RPN) -> None:
        """A feature at one cell alone changes the anchors around that cell and no others."""
        quiet = [torch.zeros(1, 6, 64 // stride, 96 // stride) for stride in STRIDES]
        loud = [level.clone() for level in quiet]
        loud[0][0, :, 5, 7] = 100.0
        rpn.convs[0].weight.data.uniform_(0.1, 1.0)
        changed = (rpn(loud).logits[0] != rpn(quiet).logits[0])[0]
        centres = (rpn(quiet).anchors[0][changed][:, :2] + rpn(quiet).anchors[0][changed][:, 2:]) / 2
        assert len(centres) == 27  # three anchors on each of the nine cells a 3×3 convolution reaches
        assert centres.amin(dim=0).tolist() == pytest.approx([24, 16])
        assert centres.amax(dim=0).tolist() == pytest.approx([32, 24])


class TestProposals:
    def test_inside_the_frame_descending_and_no_more_than_asked_for(self, rpn: RPN) -> None:
        output = rpn(features())
        for training, limit in ((True, 30), (False, 20)):
            for (boxes, scores), frame in zip(rpn.proposals(output, FRAMES, training=training), FRAMES, strict=True):
                assert 0 < len(boxes) <= limit
                assert len(scores) == len(boxes)
                assert torch.equal(scores, scores.sort(descending=True).values)
                assert box_ops.not_empty(boxes).all()
                assert torch.equal(box_ops.clip(boxes, frame.resized), boxes)

    def test_the_truth_is_proposed(self, rpn: RPN) -> None:
        targets = [truth((8, 8, 24, 24), (50, 10, 58, 18)), truth((4, 4, 34, 34))]
        proposals = rpn.proposals(answer(rpn, targets), FRAMES, training=False)
        for (boxes, scores), target in zip(proposals, targets, strict=True):
            sure = boxes[scores > 0.5]
            assert box_iou(target.boxes, sure).amax(dim=1).min() > 0.999
            assert box_iou(target.boxes, sure).amax(dim=0).min() > 0.999

    def test_levels_do_not_suppress_each_other(self, rpn: RPN) -> None:
        box = torch.tensor([[10.0, 10, 30, 30]])
        levels = [box, box, box]
        output = RPNOutput([torch.tensor([[score]]) for score in (1.0, 3.0, 2.0)], [torch.zeros(1, 1, 4)] * 3, levels)
        boxes, scores = rpn.proposals(output, FRAMES[:1], training=False)[0]
        torch.testing.assert_close(boxes, box.expand(3, 4))
        torch.testing.assert_close(scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())


class TestAt:
    @pytest.mark.parametrize("depth", [1, 2])
    def test_some_anchors_say_what_they_say_among_all(self, depth: int) -> None:
        """At corners and edges too, where a convolution sees zeros outside, and its own bias nowhere."""
        rpn, levels = RPN(6, STRIDES, depth=depth), features()
        for conv in rpn.convs:
            torch.nn.init.normal_(conv.weight, std=0.3)
            torch.nn.init.ones_(conv.bias)
        output = rpn(levels)
        logits, deltas = torch.cat(output.logits, dim=1).flatten(), torch.cat(output.deltas, dim=1).flatten(0, 1)
        numbers = torch.randperm(len(logits))
        for some in (numbers, numbers[:7], numbers[:7].repeat(2), numbers[:0]):
            again, moved = rpn.at(levels, some)
            torch.testing.assert_close(again, logits[some])
            torch.testing.assert_close(moved, deltas[some])

    def test_weights_learn_under_autocast_after_a_pass_that_is_not_learnt_from(self) -> None:
        """Autocast keeps the cast weights of the first pass, which had no gradients in torch before 2.11."""
        rpn = RPN(6, STRIDES, depth=2)
        with torch.autocast("cpu", torch.bfloat16):
            levels = features()
            count = sum(logits.numel() for logits in rpn(levels).logits)
            sum(said.square().sum() for said in rpn.at(levels, torch.arange(count))).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in rpn.parameters())

    def test_gradients_are_those_of_the_pass_over_whole_maps(self) -> None:
        rpn, levels = RPN(6, STRIDES, depth=2), [level.requires_grad_() for level in features()]
        leaves = [*levels, *rpn.parameters()]
        with torch.no_grad():
            count = sum(logits.numel() for logits in rpn(levels).logits)
        numbers = torch.randperm(count)[:50]
        some = sum(said.square().sum() for said in rpn.at(levels, numbers))
        output = RPN.forward.__wrapped__(rpn, levels)  # as it would be if it were differentiated
        logits, deltas = torch.cat(output.logits, dim=1).flatten(), torch.cat(output.deltas, dim=1).flatten(0, 1)
        whole = logits[numbers].square().sum() + deltas[numbers].square().sum()
        for one, other in zip(torch.autograd.grad(some, leaves), torch.autograd.grad(whole, leaves), strict=True):
            torch.testing.assert_close(one, other)


class TestLosses:
    def test_the_truth_costs_nothing(self, rpn: RPN) -> None:
        targets = [truth((8, 8, 24, 24), (50, 10, 58, 18)), truth()]
        output = answer(rpn, targets)
        says(rpn, output)
        losses = rpn.losses(features(), output.anchors, targets, FRAMES)
        assert losses["rpn_objectness"].item() == pytest.approx(0, abs=1e-4)
        assert losses["rpn_box"].item() == pytest.approx(0, abs=1e-6)

    def test_both_are_divided_by_the_number_of_sampled_anchors(self, rpn: RPN) -> None:
        """Every delta off by 0.1 costs 0.4 a positive anchor; every logit of 0 costs log 2."""
        targets = [truth((8, 8, 24, 24)), truth((40, 20, 56, 36))]
        output = answer(rpn, targets)
        matches = [rpn.matcher(torch.cat(output.anchors), target.boxes) for target in targets]
        positives = sum(int((match >= 0).sum()) for match in matches)
        unsure = [torch.zeros_like(level) for level in output.logits]
        says(rpn, RPNOutput(unsure, [level + 0.1 for level in output.deltas], output.anchors))
        losses = rpn.losses(features(), output.anchors, targets, FRAMES)
        assert losses["rpn_objectness"].item() == pytest.approx(math.log(2))
        assert losses["rpn_box"].item() == pytest.approx(0.4 * positives / (2 * rpn.sampler.count))

    def test_without_objects_only_objectness_is_learnt(self, rpn: RPN) -> None:
        levels = features()
        losses = rpn.losses(levels, rpn(levels).anchors, [truth(), truth()], FRAMES)
        torch.stack(list(losses.values())).sum().backward()
        assert losses["rpn_box"].item() == 0
        assert all(parameter.grad is not None for parameter in rpn.parameters())
        assert rpn.objectness.weight.grad is not None
        assert rpn.objectness.weight.grad.any()

    def test_without_an_anchor_to_learn_from_every_weight_has_a_gradient(self, rpn: RPN) -> None:
        """As DistributedDataParallel wants it: all anchors of a small photograph cross its edge."""
        rpn.inside = True
        levels, tiny = features(), (Frame(1, photo=(2, 2), resized=(2, 2)),) * 2
        losses = rpn.losses(levels, rpn(levels).anchors, [truth(), truth()], tiny)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        assert total.item() == 0
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in rpn.parameters())

    def test_small_mistakes_cost_less_with_a_smooth_loss(self, rpn: RPN) -> None:
        targets = [truth((8, 8, 24, 24)), truth()]
        output = answer(rpn, targets)
        says(rpn, output._replace(deltas=[deltas + 0.1 for deltas in output.deltas]))
        sharp = rpn.losses(features(), output.anchors, targets, FRAMES)["rpn_box"].item()
        rpn.beta = 1.0
        smooth = rpn.losses(features(), output.anchors, targets, FRAMES)["rpn_box"].item()
        assert smooth == pytest.approx(sharp * 0.1 / 2, rel=1e-3)

    def test_anchors_over_the_edge_can_be_left_out(self, rpn: RPN) -> None:
        anchors, target = torch.cat(rpn(features()).anchors), truth((0, 0, 16, 16))
        assert (rpn.match(anchors, target, FRAMES[1]) != IGNORED).any()
        rpn.inside = True
        matches = rpn.match(anchors, target, FRAMES[1])
        used = anchors[matches != IGNORED]
        assert len(used)
        assert used.amin() >= 0
        assert (used[:, 2] < 70).all()
        assert (used[:, 3] < 48).all()
        # the object on the edge takes the anchor inside that overlaps it most
        assert (matches >= 0).any()
