from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from goldens import RPN_LOSSES, Golden, region_golden
from maskbench.methods.point_rend import CoarseHead, PointRend, Raw
from maskbench.ops.points import sample_points, sample_regions
from maskbench.ops.regions import sample

LOSSES = {**RPN_LOSSES, "loss_cls": "class", "loss_bbox": "box", "loss_mask": "mask", "loss_point": "point"}


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return region_golden(shared / "goldens", "point-rend", PointRend)


@pytest.fixture(scope="module")
def raw(golden: Golden) -> Raw:
    return golden.method(golden.method.prepare(golden.batch))


class Draws:
    """The golden's random points, in the order in which they are asked for."""

    def __init__(self, golden: Golden) -> None:
        self.golden, self.asked = golden, 0

    def __call__(self, regions: int, points: int) -> Tensor:
        drawn = self.golden.recipe.fixed_uniform(f"draw{self.asked}", (regions, points, 2))
        self.asked += 1
        return torch.from_numpy(drawn).float()


class TestGolden:
    """Weights, batch and proposals of the goldens give what MMDetection computes from them."""

    @torch.no_grad()
    def test_heads(self, golden: Golden, raw: Raw) -> None:
        method, proposals = golden.method, golden.proposals()
        coarse = method.coarse_head(raw.features[0], proposals, 4)
        labels = golden["fixed/mask_labels"]
        golden.holds("fixed/mask_pred", method.mask_kind.margin(coarse, labels))
        points = golden["fixed/points"]
        fine, seen = sample_regions(raw.features[0], proposals, points, 4), sample_points(coarse, points)
        golden.holds("fixed/fine_feats", fine)
        golden.holds("fixed/coarse_feats", seen)
        golden.holds("fixed/point_logits", method.refinement(fine, seen))

    @torch.no_grad()
    def test_refined_masks(self, golden: Golden, raw: Raw) -> None:
        method, labels = golden.method, golden["fixed/mask_labels"][:6]
        proposals = [golden.proposals()[0][:6], torch.zeros(0, 4)]
        coarse = method.coarse_head(raw.features[0], proposals, 4)
        found = method.refinement.refine(raw.features[0], proposals, coarse, labels, method.mask_kind)
        wanted, stride = golden["fixed/refined_mask"], golden.arrays.info("fixed/refined_mask")["stride"]
        assert found.shape == (6, 224, 224)
        found = found.flatten()[::stride]
        # of near equal certainty one or another cell is asked anew
        close = (found - wanted).abs() <= 1e-3 * wanted.abs().max()
        assert close.float().mean() > 0.999

    def test_samples(self, golden: Golden) -> None:
        method = golden.method
        golden.holds_regions(sample(golden.proposals(), golden.batch.targets, method.matcher, method.sampler, 80))

    @torch.no_grad()
    def test_detections(self, golden: Golden, raw: Raw) -> None:
        for image, found in enumerate(golden.method.detect(raw.features, golden.proposals(), golden.batch.frames)):
            golden.holds_instances(f"pred_fixed/{image}", found)
        for image, found in enumerate(golden.method.instances(raw, golden.batch.frames)):
            golden.holds_instances(f"pred/{image}", found)

    def test_losses_and_gradients(self, golden: Golden, raw: Raw) -> None:
        method, batch = golden.method, golden.batch
        rpn_losses = method.rpn.losses(raw.features, raw.rpn.anchors, batch.targets, batch.frames)
        losses = rpn_losses | method.roi_losses(raw.features, golden.proposals(), batch.targets, Draws(golden))
        golden.holds_losses("loss_fixed", losses, LOSSES)
        torch.stack(list(losses.values())).sum().backward()
        golden.holds_gradients("loss_fixed")


def test_the_coarse_head_looks_at_the_centres_of_twice_as_many_cells() -> None:
    """On a map that holds the position of its cells' centres, a head that adds up sees the box's own centre."""
    head = CoarseHead(1, 1, size=1, width=1)
    feature = ((torch.arange(16) + 0.5) * 4).expand(1, 1, 16, 16).contiguous()
    for layer in (head.halve, head.hidden[1], head.hidden[3], head.logits):
        torch.nn.init.ones_(layer.weight)
    torch.nn.init.constant_(head.halve.weight, 0.25)
    assert head(feature, [torch.tensor([[8.0, 8, 40, 24]])], 4).item() == pytest.approx(24)
    assert head(feature, [torch.zeros(0, 4)], 4).shape == (0, 1, 1, 1)
