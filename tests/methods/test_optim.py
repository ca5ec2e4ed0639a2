from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from maskbench.methods.optim import Optim, cosine, steps


def network() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    module[2].requires_grad_(False)
    return module


def rates(optim: Optim, total: int) -> list[float]:
    """The learning rate of each step, as a trainer would use it."""
    module = network()
    scheduled = optim(module, total)
    optimizer, scheduler = scheduled["optimizer"], scheduled["lr_scheduler"]["scheduler"]
    used = []
    for _ in range(total):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


def test_cosine_falls_from_one_to_its_floor() -> None:
    assert [cosine(done) for done in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert cosine(1, floor=0.1) == pytest.approx(0.1)
    assert cosine(0.5, floor=0.1) == pytest.approx(0.55)


def test_steps_divide_by_ten_twice() -> None:
    assert [steps(epoch / 12) for epoch in (0, 7, 8, 10, 11, 12)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_rises_linearly_and_ends_near_nothing() -> None:
    used = rates(Optim(optimiser=partial(torch.optim.SGD, lr=2.0), warmup=0.08), total=100)
    assert used[:8] == pytest.approx([2 * (step + 1) / 8 for step in range(8)])
    assert max(used) == pytest.approx(2.0)
    assert used[8:] == sorted(used[8:], reverse=True)
    assert used[-1] < 2.0 * 0.001


def test_a_run_of_one_step_trains() -> None:
    assert rates(Optim(), total=1) == pytest.approx([2e-3])


def test_a_curve_sees_the_share_that_is_done_after_the_warm_up() -> None:
    seen = []
    rates(Optim(curve=lambda done: seen.append(done) or 1.0, warmup=0.2), total=10)
    assert max(seen) == pytest.approx(1.0)
    assert sorted(set(seen)) == pytest.approx([step / 8 for step in range(9)])


def test_norms_and_biases_are_not_decayed_and_frozen_weights_not_given() -> None:
    module = network()
    optimizer = Optim()(module, 10)["optimizer"]
    matrices, vectors = optimizer.param_groups
    assert [tuple(parameter.shape) for parameter in matrices["params"]] == [(4, 3, 1, 1)]
    assert [tuple(parameter.shape) for parameter in vectors["params"]] == [(4,), (4,), (4,)]
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.05, 0.0)


def test_everything_is_decayed_where_the_paper_does_so() -> None:
    (group,) = Optim(decay_norm_and_bias=True)(network(), 10)["optimizer"].param_groups
    assert len(group["params"]) == 4
    assert group["weight_decay"] == 0.05


def test_lightning_moves_the_rate_at_every_step() -> None:
    assert Optim()(network(), 10)["lr_scheduler"]["interval"] == "step"
