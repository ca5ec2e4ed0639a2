from __future__ import annotations

import pytest
import torch

from maskbench.nn.semantic import SemanticFPN


def levels(channels: int) -> list[torch.Tensor]:
    return [torch.randn(2, channels, 96 // stride, 128 // stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize("coordinates", [False, True])
def test_one_map_at_the_finest_stride_and_not_negative(coordinates: bool) -> None:
    decoder = SemanticFPN(6, levels=4, width=8, outputs=10, coordinates=coordinates)
    found = decoder(levels(6))
    assert found.shape == (2, 10, 24, 32)
    assert found.min() >= 0


def test_every_level_counts_and_more_may_be_given() -> None:
    decoder, features = SemanticFPN(6, levels=3, width=8, outputs=10), levels(6)
    found = decoder(features[:3])
    assert torch.equal(decoder(features), found)
    for level in range(3):
        changed = list(features)
        changed[level] = torch.randn_like(features[level])
        assert not torch.allclose(decoder(changed), found)


def test_coordinates_tell_where_a_cell_is() -> None:
    """Without them a constant input gives the same everywhere but at the border."""
    features = [torch.ones(1, 6, 512 // stride, 512 // stride) for stride in (4, 8, 16, 32)]
    with torch.no_grad():
        plain, located = (
            SemanticFPN(6, width=8, outputs=10, coordinates=with_them)(features) for with_them in (False, True)
        )
    inner = (..., slice(48, 80), slice(48, 80))
    assert plain[inner].std(dim=(2, 3)).max() < 1e-5
    assert located[inner].std(dim=(2, 3)).max() > 1e-3


def test_initial_weights_keep_the_size_of_features_or_are_as_small_as_asked_for() -> None:
    for std, expected in ((None, (2 / (9 * 16)) ** 0.5), (0.01, 0.01)):
        decoder = SemanticFPN(16, 2, 16, 16, std=std)
        weight = decoder.chains[0][0][0].weight
        assert weight.std().item() == pytest.approx(expected, rel=0.1)
