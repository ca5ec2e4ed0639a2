"""Grouping pixels by their embeddings, on whatever device they are.

P points   E embedding dimensions   M modes
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from maskbench.ops.precision import full_precision
from maskbench.ops.suppress import survivors

PAIRS = 1 << 24
"""Distances are worked out in chunks of at most this many pairs: 64 MB."""


def mean_shift(
    points: Float[Tensor, "P E"], bandwidth: float, *, iterations: int = 4, seeds: int = 2048
) -> tuple[Int64[Tensor, " P"], Float[Tensor, "M E"]]:
    """Mean-shift with a flat kernel (Comaniciu & Meer, PAMI 2002).

    `seeds` points, evenly spread over the rows, climb for `iterations` steps to the mean of the points within
    `bandwidth`. Of modes closer than the bandwidth the one with most points remains. Points that no mode reaches, an
    object too small to hold a seed, seed once more; in the end every point joins the nearest mode.

    Returns:
        the mode of each point, and the modes, the best supported first.
    """
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.long, device=points.device), points[:0]
    modes = _settle(_climb(_spread(points, seeds), points, bandwidth, iterations), points, bandwidth)
    distance, nearest = _nearest(points, modes)
    missed = points[distance >= bandwidth]
    if len(points) > seeds and len(missed):
        found = _climb(_spread(missed, seeds), points, bandwidth, iterations)
        modes = _settle(torch.cat([modes, found]), points, bandwidth)
        _, nearest = _nearest(points, modes)
    return nearest, modes


def keep_apart(points: Float[Tensor, "M E"], distance: float) -> Bool[Tensor, " M"]:
    """Greedy suppression: a point stays unless a point before it stays within `distance`."""
    return survivors(torch.cdist(points, points) < distance)


def _spread(points: Float[Tensor, "P E"], count: int) -> Float[Tensor, "S E"]:
    """At most `count` of the points, evenly spread over the rows."""
    return points[:: -(-len(points) // count)]


def _climb(
    seeds: Float[Tensor, "S E"], points: Float[Tensor, "P E"], bandwidth: float, iterations: int
) -> Float[Tensor, "S E"]:
    """Each seed after `iterations` steps to the mean of the points around it (there are some, nearer than before)."""
    for _ in range(iterations):
        means = []
        for part in _chunks(seeds, len(points)):
            within = (torch.cdist(part, points) < bandwidth).to(points.dtype)
            with full_precision(points.device):
                means.append((within @ points) / within.sum(dim=1, keepdim=True).clamp(min=1))
        seeds = torch.cat(means)
    return seeds


def _settle(modes: Float[Tensor, "S E"], points: Float[Tensor, "P E"], bandwidth: float) -> Float[Tensor, "M E"]:
    """The modes that stay when those near a better supported one go, by descending support."""
    support = torch.cat([(torch.cdist(part, points) < bandwidth).sum(dim=1) for part in _chunks(modes, len(points))])
    modes = modes[support.argsort(descending=True, stable=True)]
    return modes[keep_apart(modes, bandwidth)]


def _nearest(
    points: Float[Tensor, "P E"], modes: Float[Tensor, "M E"]
) -> tuple[Float[Tensor, " P"], Int64[Tensor, " P"]]:
    """Distance to the nearest mode, and which one it is."""
    parts = [torch.cdist(part, modes).min(dim=1) for part in _chunks(points, len(modes))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _chunks(rows: Tensor, columns: int) -> tuple[Tensor, ...]:
    return rows.split(max(1, PAIRS // max(1, columns)))
