from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskbench.nn.points import PointRefinement
from maskbench.ops.mask_kinds import ClassAgnostic, PerClassSigmoid
from maskbench.ops.regions import Regions
from maskbench.structures import Instances, Masks

LABELS = torch.zeros(1, dtype=torch.long)
BOX = torch.tensor([[8.0, 8, 40, 40]])


@pytest.fixture
def refinement() -> PointRefinement:
    return PointRefinement(3, 4, 1, width=8, depth=2, points=40, subdivisions=3, budget=28)


def disc() -> Instances:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    masks = Masks(((y - 24) ** 2 + (x - 24) ** 2 < 120)[None])
    return Instances(masks, masks.boxes(), LABELS, torch.ones(1))


def test_most_points_lie_where_the_mask_is_unsure(refinement: PointRefinement) -> None:
    """A mask that is sure on its left and unsure on its right: three quarters are asked there, the rest anywhere."""
    coarse = torch.cat([torch.full((1, 1, 8, 4), 9.0), torch.full((1, 1, 8, 4), 0.1)], dim=3)
    chosen = refinement.choose(coarse, LABELS, ClassAgnostic(), lambda regions, points: torch.rand(regions, points, 2))
    assert chosen.shape == (1, 40, 2)
    assert (chosen[0, :30, 0] > 0.5).all()
    assert (chosen[0, 30:, 0] < 0.5).any()


def test_cells_that_are_sure_stay_as_they_are(refinement: PointRefinement) -> None:
    coarse = torch.full((1, 1, 7, 7), 8.0)
    coarse[:, :, :, 4:] = -8.0
    torch.nn.init.constant_(refinement.logits.bias, 3.0)
    feature = torch.randn(1, 3, 16, 16)
    refined = refinement.refine(feature, [BOX], coarse, LABELS, ClassAgnostic())
    assert refined.shape == (1, 56, 56)
    plain = F.interpolate(coarse, scale_factor=2, mode="bilinear")
    for _ in range(2):
        plain = F.interpolate(plain, scale_factor=2, mode="bilinear")
    changed = (refined - plain[0]).abs()[0] > 1e-4
    assert changed.any()
    assert not changed[:, :8].any()
    assert not changed[:, -8:].any()


def test_a_head_that_knows_draws_the_outline(refinement: PointRefinement) -> None:
    """Fine features say where the disc is, and the head reads them: the refined mask is the disc's, cell by cell."""
    true = disc()
    feature = 40 * (true.masks.dense()[:, None].float() - 0.5).expand(1, 3, 64, 64)

    class Reads(PointRefinement):
        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            return fine[:, :1]

    reads = Reads(3, 1, 1, subdivisions=3, budget=56 * 56)
    refined = reads.refine(feature, [BOX], torch.zeros(1, 1, 7, 7), LABELS, ClassAgnostic())[0] > 0
    truth = true.masks.dense()[0, 8:40, 8:40].float()[None, None]
    wanted = F.interpolate(truth, (56, 56), mode="bilinear")[0, 0] > 0.5
    assert (refined == wanted).float().mean() > 0.99


def test_the_truth_costs_little_and_the_contrary_much(refinement: PointRefinement) -> None:
    true = disc()
    regions = Regions([BOX], [LABELS], [LABELS], [torch.zeros(1, dtype=torch.bool)])

    class Reads(PointRefinement):
        sign = 1

        def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
            return self.sign * fine[:, :1]

    reads = Reads(3, 1, 1, points=200)
    feature = 20 * (true.masks.dense()[:, None].float() - 0.5).expand(1, 3, 64, 64)
    costs = []
    for reads.sign in (1, -1):
        costs.append(reads.loss(feature, regions, torch.zeros(1, 1, 7, 7), [true], PerClassSigmoid()).item())
    assert costs[0] < 0.2
    assert costs[1] > 3


def test_nothing_to_refine(refinement: PointRefinement) -> None:
    feature, nothing = torch.randn(1, 3, 16, 16), torch.zeros(0, 1, 7, 7)
    assert refinement.refine(feature, [BOX[:0]], nothing, LABELS[:0], ClassAgnostic()).shape == (0, 56, 56)
    regions = Regions([BOX[:0]], [LABELS[:0]], [LABELS[:0]], [torch.zeros(0, dtype=torch.bool)])
    loss = refinement.loss(feature, regions, nothing, [disc()], ClassAgnostic())
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None for weight in refinement.parameters())
