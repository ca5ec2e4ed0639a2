"""Ways to run a network give what the network gives."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskbench.evaluation import execution
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


def same(network: Network, way: str, device: str, precision: torch.dtype | None) -> None:
    """Images of two sizes, the first of them again, give what they give operator by operator."""
    network = network.to(device).eval()
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if precision is None else {"atol": 2e-2, "rtol": 2e-2}
    with torch.inference_mode(), torch.autocast(device, dtype=precision, enabled=precision is not None):
        run = executed(network, way, torch.device(device))
        for seed, side in ((0, 16), (1, 24), (2, 16)):
            images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(device)
            torch.testing.assert_close(run(images), network(images), **tolerance)


def test_eager_is_the_network_itself() -> None:
    network = Network()
    assert executed(network, "eager", torch.device("cpu")) is network


def test_every_size_is_compiled_and_none_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        sizes.extend(tensor.shape[-1] for tensor in inputs if tensor.shape[:2] == (1, 3))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(execution, "OPTIONS", None)
    network = Network()
    run = executed(network, "compiled", torch.device("cpu"))
    with torch.inference_mode():
        for side in (*range(8, 19), 9):  # more than the compiler's own limit
            images = torch.randn(1, 3, side, side)
            torch.testing.assert_close(run(images), network(images))
        assert sizes == list(range(8, 19))
        monkeypatch.setattr(execution, "SIZES", 11)
        with pytest.raises(Exception, match="limit"):
            run(torch.randn(1, 3, 40, 40))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_compiled_computes_the_same() -> None:
    same(Network(), "compiled", "cpu", None)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of the compiler's own imports
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("way", ["graph", "compiled"])
def test_on_a_gpu_they_compute_the_same(way: str, precision: torch.dtype | None) -> None:
    same(Network(), way, "cuda", precision)
