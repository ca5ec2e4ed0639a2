from __future__ import annotations

import math

import pytest
import torch

from maskbench.ops.mask_kinds import ClassAgnostic, MaskKind, PerClassSigmoid, Softmax

KINDS: list[MaskKind] = [PerClassSigmoid(), ClassAgnostic(), Softmax()]
LABELS = torch.tensor([1, 0])


def logits(kind: MaskKind, classes: int = 2) -> torch.Tensor:
    return torch.randn(2, kind.channels(classes), 3, 4)


def test_channels() -> None:
    assert [kind.channels(7) for kind in KINDS] == [7, 1, 8]


@pytest.mark.parametrize("kind", KINDS)
def test_the_margin_is_above_zero_where_the_instance_is(kind: MaskKind) -> None:
    """Of a place that says the truth loudly; the loss of saying it is nothing, of the contrary is large."""
    wanted = torch.tensor([[[1.0, 0], [0, 1]], [[0, 0], [1, 1]]])
    said = 10 * (2 * wanted[:, None] - 1)
    if isinstance(kind, PerClassSigmoid):
        said = said * torch.eye(2)[LABELS][:, :, None, None]
    if isinstance(kind, Softmax):
        said = torch.cat([said * torch.eye(2)[LABELS][:, :, None, None], -said], dim=1)
    assert torch.equal(kind.margin(said, LABELS) > 0, wanted > 0)
    assert kind.loss(said, LABELS, wanted).item() < 1e-3
    assert kind.loss(said, LABELS, 1 - wanted).item() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_without_an_instance_the_loss_is_nothing_and_still_gives_a_gradient(kind: MaskKind) -> None:
    empty = torch.zeros(0, kind.channels(2), 3, 4, requires_grad=True)
    loss = kind.loss(empty, LABELS[:0], torch.zeros(0, 3, 4))
    loss.backward()
    assert loss.item() == 0
    assert empty.grad is not None


def test_other_classes_cost_a_sigmoid_nothing_and_a_softmax_something() -> None:
    wanted = torch.ones(2, 3, 4)
    for kind, depends in ((PerClassSigmoid(), False), (Softmax(), True)):
        said = logits(kind)
        louder = said.clone()
        louder[0, 0] += 3  # of the other class of the first instance
        same = kind.loss(louder, LABELS, wanted).item() == pytest.approx(kind.loss(said, LABELS, wanted).item())
        assert same is not depends


def test_the_margin_of_a_softmax_is_the_log_odds_of_its_probability() -> None:
    said = logits(Softmax())
    expected = said.softmax(dim=1)[torch.arange(2), LABELS]
    torch.testing.assert_close(Softmax().margin(said, LABELS).sigmoid(), expected)


def test_points_are_as_good_as_cells() -> None:
    said, wanted = torch.zeros(2, 2, 5), torch.full((2, 5), 0.5)
    assert PerClassSigmoid().loss(said, LABELS, wanted).item() == pytest.approx(math.log(2))
    assert PerClassSigmoid().margin(said, LABELS).shape == (2, 5)
