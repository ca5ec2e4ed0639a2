"""What tests of methods share: two photos of discs, and what Matrix NMS is given."""

from __future__ import annotations

import pytest
from torch import Tensor

from maskbench.ops import suppress
from maskbench.structures import Batch, Instances
from maskbench.testing import discs


@pytest.fixture(scope="session")
def classes() -> tuple[str, ...]:
    return discs.CLASSES


@pytest.fixture(scope="session")
def batch() -> Batch:
    return discs.batch()


@pytest.fixture(scope="session")
def truth() -> list[Instances]:
    """The same discs in the pixels of their photos."""
    return discs.truth()


@pytest.fixture(scope="session")
def without_objects() -> Batch:
    return discs.without_objects()


@pytest.fixture
def suppressed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """What Matrix NMS is given while the test runs, image by image (masks, labels, scores), and what it makes of it."""
    seen: list[tuple[Tensor, ...]] = []
    matrix_nms = suppress.matrix_nms

    def watched(masks: Tensor, labels: Tensor, scores: Tensor, sigma: float) -> Tensor:
        seen.append((masks, labels, scores, matrix_nms(masks, labels, scores, sigma)))
        return seen[-1][-1]

    monkeypatch.setattr(suppress, "matrix_nms", watched)
    return seen
