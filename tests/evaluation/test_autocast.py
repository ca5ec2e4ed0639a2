from __future__ import annotations

import pytest
import torch

from maskbench.evaluation.autocast import CASTS, autocast
from maskbench.evaluation.precision import PRECISIONS


@pytest.mark.parametrize(("precision", "kind"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_products_are_computed_in_it(precision: str, kind: torch.dtype) -> None:
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_every_precision_has_its_cast() -> None:
    assert tuple(CASTS) == PRECISIONS
