from __future__ import annotations

import pytest
import torch

from maskbench.nn.roi import BoxHead, MaskHead
from maskbench.nn.upsample import NearestConv


@pytest.mark.parametrize("regions", [0, 1, 5])
def test_box_head(regions: int) -> None:
    logits, deltas = BoxHead(6, classes=3, width=16)(torch.randn(regions, 6, 7, 7))
    assert logits.shape == (regions, 4)  # background is the last
    assert deltas.shape == (regions, 3, 4)


@pytest.mark.parametrize("regions", [0, 1, 5])
def test_mask_head_doubles_the_side(regions: int) -> None:
    head = MaskHead(6, outputs=3, width=8, depth=2)
    assert head.size == 28
    assert head(torch.randn(regions, 6, 14, 14)).shape == (regions, 3, 28, 28)


def test_depth_and_pool_can_be_chosen() -> None:
    head = MaskHead(6, outputs=3, pool=7, width=8, depth=1)
    assert (len(head.convs), head.size) == (1, 14)
    assert head(torch.randn(1, 6, 7, 7)).shape == (1, 3, 14, 14)
    assert BoxHead(6, classes=3, pool=3, width=16)(torch.randn(2, 6, 3, 3))[0].shape == (2, 4)


def test_one_box_for_all_classes() -> None:
    assert BoxHead(6, classes=3, width=16, agnostic=True)(torch.randn(5, 6, 7, 7))[1].shape == (5, 1, 4)


def test_a_mask_is_drawn_of_what_was_seen() -> None:
    head, regions = MaskHead(6, outputs=3, width=8, depth=2, upsample=NearestConv), torch.randn(2, 6, 14, 14)
    seen = head.look(regions)
    assert seen.shape == (2, 8, 14, 14)
    torch.testing.assert_close(head.draw(seen), head(regions))


def test_regions_do_not_meet() -> None:
    head, regions = BoxHead(6, classes=3, width=16), torch.randn(4, 6, 7, 7)
    torch.testing.assert_close(head(regions)[0][2:3], head(regions[2:3])[0])
