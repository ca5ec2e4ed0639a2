from __future__ import annotations

import torch
from torch import nn

from maskbench.nn.fpn import FPN

CHANNELS, STRIDES = (8, 16, 24, 32), (4, 8, 16, 32)


def pyramid(height: int, width: int) -> list[torch.Tensor]:
    """A backbone's maps of an image, whose sides need not be multiples of the strides."""
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    return [torch.randn(2, channels, *size) for channels, size in zip(CHANNELS, sizes, strict=True)]


def test_a_level_more_than_the_backbone_has() -> None:
    fpn = FPN(CHANNELS, STRIDES, width=12)
    levels = fpn(pyramid(128, 192))
    assert fpn.strides == (4, 8, 16, 32, 64)
    assert [level.shape for level in levels] == [(2, 12, 128 // stride, 192 // stride) for stride in fpn.strides]


def test_the_last_level_is_every_second_cell_of_the_one_before() -> None:
    *_, p5, p6 = FPN(CHANNELS, STRIDES, width=12)(pyramid(160, 224))
    assert p6.shape[-2:] == (3, 4)
    assert torch.equal(p6, p5[:, :, ::2, ::2])


def test_odd_sizes_meet() -> None:
    levels = FPN(CHANNELS, STRIDES, width=12)(pyramid(100, 132))
    assert [tuple(level.shape[-2:]) for level in levels] == [(25, 33), (13, 17), (7, 9), (4, 5), (2, 3)]


def test_the_way_down_adds_the_nearest_cell() -> None:
    """With identities for convolutions a level is the sum of the cells above it."""
    fpn = FPN((1, 1, 1), (4, 8, 16), width=1)
    for conv in (*fpn.lateral, *fpn.output):
        nn.init.dirac_(conv.weight)
    fine, middle, coarse = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 4, 4), torch.rand(1, 1, 2, 2)
    found = fpn([fine, middle, coarse])
    second = middle + coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(found[1], second)
    torch.testing.assert_close(found[0], fine + second.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
