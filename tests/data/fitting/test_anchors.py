from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from maskbench.data.fitting import anchors
from maskbench.data.fitting.anchors import best_overlaps, fit_ratios, fit_scales, mean_best, shapes
from maskbench.nn.rpn import RPN

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)


def planted(scales: list[float], ratios: list[float], levels: tuple[int, ...], noise: float = 0.05) -> np.ndarray:
    """A thousand boxes around anchors of these scales and ratios on some of the levels."""
    rng = np.random.default_rng(0)
    centres = shapes([STRIDES[level] for level in levels], scales, ratios)
    return centres[rng.integers(len(centres), size=1000)] * np.exp(noise * rng.standard_normal((1000, 2)))


def test_shapes_are_those_of_the_network() -> None:
    rpn = RPN(4, STRIDES, scales=(2.5, 4.0), ratios=(0.4, 1.0, 2.0))
    own = torch.cat([rpn.anchors(1, 1, stride) for stride in STRIDES])
    wanted = torch.from_numpy(shapes(STRIDES, (2.5, 4.0), (0.4, 1.0, 2.0))).float()
    torch.testing.assert_close(own[:, 2:] - own[:, :2], wanted)


def test_overlaps_are_those_of_boxes_with_one_centre() -> None:
    rng = np.random.default_rng(0)
    sides, others = rng.uniform(1, 50, (20, 2)), rng.uniform(1, 50, (7, 2))
    boxes, rivals = (torch.from_numpy(np.concatenate([-some / 2, some / 2], axis=1)) for some in (sides, others))
    wanted, which = box_iou(boxes, rivals).max(dim=1)
    overlap, nearest = best_overlaps(sides, others)
    np.testing.assert_allclose(overlap, wanted.numpy())
    assert nearest.tolist() == which.tolist()


@pytest.mark.parametrize("ratios", [[0.3, 1.0, 2.5], [0.8, 1.6, 4.0]])
def test_planted_ratios_are_found(ratios: list[float]) -> None:
    found = fit_ratios(planted([8.0], ratios, (0, 1, 2, 3, 4)), RATIOS)
    assert found == pytest.approx(ratios, rel=0.05)


@pytest.mark.parametrize("scales", [[5.0], [11.0], [2.0, 3.0]])
def test_planted_scales_are_found_through_the_levels(scales: list[float]) -> None:
    """An anchor of one level is as large as one of half the scale on the next: found are sizes, not names of levels."""
    sides = planted(scales, [1.0], (0, 1, 2))
    found = fit_scales(sides, STRIDES, (8.0,), (1.0,))
    assert len(found) == len(scales)
    folded = sorted(scale / 2 ** np.floor(np.log2(scale / min(scales)) + 0.25) for scale in found)
    assert folded == pytest.approx(scales, rel=0.05)
    assert mean_best(sides, STRIDES, found, (1.0,)) > 0.9


def test_a_second_scale_has_to_be_worth_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = planted([4.0, 4.3], [1.0], (0, 1, 2))  # too near each other for two scales
    assert len(fit_scales(sides, STRIDES, (8.0,), (1.0,))) == 1
    monkeypatch.setattr(anchors, "WORTH", 0.0)
    assert len(fit_scales(sides, STRIDES, (8.0,), (1.0,))) == 2


@pytest.mark.parametrize("seed", range(5))
def test_nothing_gets_worse(seed: int) -> None:
    """Also where boxes are few and of all shapes, so that means are of no cluster."""
    sides = np.exp(np.random.default_rng(seed).uniform(1, 6, (12, 2)))
    unit = sides / np.sqrt(sides.prod(axis=1, keepdims=True))
    for start in ((8.0,), (3.0, 8.0), (2.0, 3.0, 5.0, 7.0)):
        ratios = fit_ratios(sides, RATIOS)
        assert mean_best(unit, [1.0], [1.0], ratios) >= mean_best(unit, [1.0], [1.0], RATIOS)
        scales = fit_scales(sides, STRIDES, start, ratios)
        assert mean_best(sides, STRIDES, scales, ratios) >= mean_best(sides, STRIDES, start, ratios)


def test_of_many_boxes_some_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = planted([5.0], [1.0], (0, 1, 2))
    monkeypatch.setattr(anchors, "BOXES", 100)
    assert anchors._some(sides).shape == (100, 2)
    assert fit_scales(sides, STRIDES, (8.0,), (1.0,)) == pytest.approx([5.0], rel=0.05)
