"""Rows that are worked on in groups, such as those of each level of a pyramid, and put back in their order.

N rows   n rows of a group
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor


@lru_cache(maxsize=4096)
def constant(numbers: tuple[int, ...], device: torch.device) -> Int64[Tensor, " N"]:
    """A few numbers on a device, kept because copying them there waits for it. Shared: never change them in place."""
    with torch.inference_mode(False):  # for training as well, whoever asks first
        return torch.tensor(numbers, device=device)


def grouped(groups: Int64[Tensor, " N"], count: int) -> tuple[Int64[Tensor, " _n"], ...]:
    """The rows of each of `count` groups, ascending; a device is waited for once."""
    sizes = (groups[:, None] == torch.arange(count, device=groups.device)).sum(dim=0)
    return groups.argsort(stable=True).split(sizes.tolist())


def in_order(
    parts: Sequence[Shaped[Tensor, "_n ..."]], rows: Sequence[Int64[Tensor, " _n"]]
) -> Shaped[Tensor, "N ..."]:
    """Parts of a whole put together; `rows` says, ascending, which of its rows each part holds."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))[torch.cat(list(rows)).argsort()]
