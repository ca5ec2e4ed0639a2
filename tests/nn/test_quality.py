from __future__ import annotations

from dataclasses import replace

import torch

from cells import FRAME, one_hot
from maskbench.nn.quality import MaskQuality
from maskbench.ops.grouping import Groups, SemanticMap


def setting() -> tuple[torch.Tensor, Groups, SemanticMap, torch.Tensor]:
    """The left half is one object and a group that finds it; the right half is a group of nothing."""
    cells = torch.full((16, 16), -1)
    cells[:, :8] = 0
    member = torch.zeros(16, 16, dtype=torch.long)
    member[:, 8:] = 1
    known = SemanticMap(one_hot(torch.zeros(16, 16, dtype=torch.long), 2), FRAME, 4)
    some = torch.ones(256)
    groups = Groups(member.flatten(), some, some, torch.zeros(2, dtype=torch.long), torch.ones(2))
    features = torch.zeros(1, 3, 16, 16)
    features[:, 0, :, :8] = 1.0
    return features, groups, known, cells


def test_learns_which_groups_are_objects_and_moves_nothing_else() -> None:
    torch.manual_seed(0)
    features, groups, known, cells = setting()
    features.requires_grad_()
    quality = MaskQuality(3)
    optimiser = torch.optim.Adam(quality.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        quality.loss(features, [groups], [known], cells[None]).backward()
        optimiser.step()
    assert features.grad is None
    scored = quality.scored(features[0], groups, known)
    assert scored.quality is not None
    found, nothing = scored.quality.tolist()
    assert found > 0.9
    assert nothing < 0.1


def test_groups_too_small_for_an_instance_do_not_count() -> None:
    features, groups, known, cells = setting()
    quality = MaskQuality(3)
    alone = quality.loss(features, [groups], [known], cells[None], smallest=4)
    specks = replace(groups, label=torch.zeros(4, dtype=torch.long), centre=torch.ones(4))  # two of no cell
    torch.testing.assert_close(quality.loss(features, [specks], [known], cells[None], smallest=4), alone)
    assert quality.loss(features, [groups], [known], cells[None], smallest=129).item() == 0


def test_no_group_still_trains_every_weight() -> None:
    features, _, known, cells = setting()
    whole, none = torch.full((256,), -1), torch.zeros(256)
    empty = Groups(whole, none, none, torch.zeros(0, dtype=torch.long), torch.zeros(0))
    quality = MaskQuality(3)
    loss = quality.loss(features, [empty], [known], cells[None])
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is not None for weight in quality.parameters())


def test_half_precision_makes_no_ties() -> None:
    features, groups, known, _ = setting()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scored = MaskQuality(3).scored(features[0], groups, known)
    assert scored.quality is not None
    assert scored.quality.dtype == torch.float32
