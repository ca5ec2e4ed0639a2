"""Ways to run a network give what the network gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from maskbench.evaluation.execution import executed


class Network(nn.Module):
    """Half of what comes in is thrown away, and what goes out has a structure."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        features = self.norm(self.conv(images)).relu()
        return [features, features[..., ::2, ::2]], features.mean()


def same(network: Network, execution: str, device: str, precision: torch.dtype | None) -> None:
    """Images of two sizes, the first of them again, give what they give operator by operator."""
    network = network.to(device).eval()
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if precision is None else {"atol": 2e-2, "rtol": 2e-2}
    with torch.inference_mode(), torch.autocast(device, dtype=precision, enabled=precision is not None):
        run = executed(network, execution, torch.device(device))
        for seed, side in ((0, 16), (1, 24), (2, 16)):
            images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(device)
            torch.testing.assert_close(run(images), network(images), **tolerance)


def test_eager_is_the_network_itself() -> None:
    network = Network()
    assert executed(network, "eager", torch.device("cpu")) is network


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_compiled_computes_the_same() -> None:
    same(Network(), "compiled", "cpu", None)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of the compiler's own imports
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("execution", ["graph", "compiled"])
def test_on_a_gpu_they_compute_the_same(execution: str, precision: torch.dtype | None) -> None:
    same(Network(), execution, "cuda", precision)
