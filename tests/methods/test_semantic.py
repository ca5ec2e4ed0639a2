from __future__ import annotations

from functools import partial

import pytest
import torch

from answers import answer
from cells import FRAME, matched, narrow, rectangles
from maskbench.methods.semantic import Raw, Semantic
from maskbench.nn.decoders import semantic_fpn
from maskbench.structures import Batch


@pytest.fixture
def method(classes: tuple[str, ...]) -> Semantic:
    return Semantic(backbone=narrow(), classes=classes, decoder=partial(semantic_fpn, fpn_width=8, width=8))


def test_what_hangs_together_is_an_object(method: Semantic) -> None:
    """Two that touch are one, one of another class beside them is another, and so is one that lies apart."""
    boxes = [(0, 0, 64, 16), (0, 16, 64, 24), (0, 24, 64, 32), (0, 40, 64, 64)]
    target = rectangles((64, 64), *boxes, labels=[0, 0, 1, 0])
    (found,) = method.instances(answer(method, [target]), [FRAME])
    wanted = rectangles((64, 64), (0, 0, 64, 24), (0, 24, 64, 32), (0, 40, 64, 64), labels=[0, 1, 0])
    row, overlap = matched(found, wanted)
    assert overlap.tolist() == [1, 1, 1]
    assert found.labels[row].tolist() == [0, 1, 0]


@pytest.mark.parametrize(("connectivity", "count"), [(4, 2), (8, 1)])
def test_corners_connect_or_do_not(classes: tuple[str, ...], connectivity: int, count: int) -> None:
    decoder = partial(semantic_fpn, fpn_width=8, width=8)
    method = Semantic(backbone=narrow(), classes=classes, decoder=decoder, connectivity=connectivity)
    target = rectangles((64, 64), (0, 0, 32, 32), (32, 32, 64, 64), labels=[0, 0])
    assert len(method.instances(answer(method, [target]), [FRAME])[0]) == count


def test_the_true_map_still_joins_what_touches(method: Semantic) -> None:
    target = rectangles((64, 64), (0, 0, 64, 32), (0, 32, 64, 64), labels=[0, 0])
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), (target,), (FRAME,))
    nothing = Raw(torch.zeros(1, 3, 16, 16))
    (found,) = method.given(nothing, batch, "semantic map")
    assert found.masks.areas().tolist() == [64 * 64]
    assert found.scores.tolist() == [1]
