from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.utils.model import freeze_batch_norm_2d
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from maskbench.nn.folding import FoldedConv, fold_frozen_norms


def frozen(name: str) -> nn.Module:
    """A network whose norms are frozen at statistics that change something."""
    body = freeze_batch_norm_2d(timm.create_model(name, features_only=True)).eval()
    for module in body.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for buffer in module.buffers():
                buffer.uniform_(0.5, 1.5)
    return body


# the last convolution of a deep stem lies in another module than its norm
@pytest.mark.parametrize(("name", "left"), [("resnet10t", 1), ("resnet50", 0), ("resnext50_32x4d", 0)])
def test_it_computes_the_same_under_the_same_names(name: str, left: int) -> None:
    plain = frozen(name).double()  # random statistics grow with depth beyond what single precision keeps apart
    folded = fold_frozen_norms(copy.deepcopy(plain))
    assert set(folded.state_dict()) == set(plain.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for expected, found in zip(plain(images), folded(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * expected.abs().max().item())
    assert sum(type(conv) is nn.Conv2d for conv in folded.modules()) == left


def test_gradients_are_the_same() -> None:
    plain = frozen("resnet10t")
    folded = fold_frozen_norms(copy.deepcopy(plain))
    images = torch.randn(2, 3, 64, 64)
    for body in (plain, folded):
        sum(level.mean() for level in body(images)).backward()
    for (name, expected), (_, found) in zip(plain.named_parameters(), folded.named_parameters(), strict=True):
        assert expected.grad is not None, name
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_weights_that_are_loaded_or_copied_afterwards_count() -> None:
    plain, folded = frozen("resnet10t"), fold_frozen_norms(frozen("resnet10t"))
    folded.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    for body in (folded, copy.deepcopy(folded)):
        torch.testing.assert_close(body(images)[-1], plain(images)[-1], rtol=1e-3, atol=1e-3)
    twin = copy.deepcopy(folded)
    for module in twin.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.bias.zero_()
    assert not torch.allclose(twin(images)[-1], folded(images)[-1])


def test_what_runs_in_another_order_is_left_alone() -> None:
    class NormFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)
            self.norm = FrozenBatchNorm2d(3)

    assert not any(isinstance(module, FoldedConv) for module in fold_frozen_norms(NormFirst()).modules())
