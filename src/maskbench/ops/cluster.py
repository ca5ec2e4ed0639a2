"""Grouping pixels by their embeddings, on whatever device they are.

P points   E embedding dimensions   M modes
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

PAIRS = 1 << 24
"""Distances are worked out in chunks of at most this many pairs: 64 MB."""


def mean_shift(
    points: Float[Tensor, "P E"], bandwidth: float, *, iterations: int = 4, seeds: int = 2048
) -> tuple[Int64[Tensor, " P"], Float[Tensor, "M E"]]:
    """Mean-shift with a flat kernel (Comaniciu & Meer, PAMI 2002).

    `seeds` points, evenly spread over the rows, climb for `iterations` steps to the mean of the points within
    `bandwidth`. Of modes closer than the bandwidth the one with most points remains, and every point joins the
    nearest that remains.

    Returns:
        the mode of each point, and the modes, the best supported first.
    """
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.long, device=points.device), points[:0]
    step = -(-len(points) // seeds)
    modes = points[::step]
    for _ in range(iterations):
        modes = torch.cat([_climb(part, points, bandwidth) for part in _chunks(modes, len(points))])
    support = torch.cat(
        [(torch.cdist(part, points) < bandwidth).sum(dim=1) for part in _chunks(modes, len(points))]
    )
    order = support.argsort(descending=True, stable=True)
    modes = modes[order][keep_apart(modes[order], bandwidth)]
    nearest = torch.cat([torch.cdist(part, modes).argmin(dim=1) for part in _chunks(points, len(modes))])
    return nearest, modes


def keep_apart(points: Float[Tensor, "M E"], distance: float) -> Bool[Tensor, " M"]:
    """Greedy suppression: a point stays unless a point before it stays within `distance`.

    Each round settles every point whose predecessors nearby are settled, so that the result is the sequential one in
    a few rounds of tensor work.
    """
    near = (torch.cdist(points, points) < distance).tril(diagonal=-1)
    kept = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    open_ = torch.ones_like(kept)
    while bool(open_.any()):
        waits = (near & open_[None]).any(dim=1)
        suppressed = (near & kept[None]).any(dim=1)
        kept |= open_ & ~waits & ~suppressed
        open_ &= ~kept & ~(near & kept[None]).any(dim=1)
    return kept


def _climb(modes: Float[Tensor, "M E"], points: Float[Tensor, "P E"], bandwidth: float) -> Float[Tensor, "M E"]:
    within = (torch.cdist(modes, points) < bandwidth).to(points.dtype)
    return (within @ points) / within.sum(dim=1, keepdim=True).clamp(min=1)


def _chunks(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    return rows.split(max(1, PAIRS // max(1, columns)))
