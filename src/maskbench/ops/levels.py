"""Rows that are worked on in groups, such as those of each level of a pyramid, and put back in their order.

N rows   n rows of a group
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


def in_order(
    parts: Sequence[Shaped[Tensor, "_n ..."]], rows: Sequence[Int64[Tensor, " _n"]]
) -> Shaped[Tensor, "N ..."]:
    """Parts of a whole put together; `rows` says, ascending, which of its rows each part holds."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))[torch.cat(list(rows)).argsort()]
