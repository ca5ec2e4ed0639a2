from __future__ import annotations

import pytest

from maskbench.errors import ConfigError
from maskbench.evaluation.precision import precision_name


@pytest.mark.parametrize(("given", "name"), [(32, "32-true"), ("32", "32-true"), ("bf16-mixed", "bf16-mixed")])
def test_a_precision_has_one_name(given: str | int, name: str) -> None:
    assert precision_name(given) == name


def test_a_precision_that_nothing_predicts_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="one of 32-true, 16-mixed, bf16-mixed, found '64-true'"):
        precision_name("64-true")
