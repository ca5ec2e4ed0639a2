"""Grouping an image's foreground cells by their embeddings, on whatever device they are.

Every clusterer takes the `Pixels` of each image and gives a `Grouping` for each.

P points, the foreground cells of one image   E embedding dimensions   S seeds   M clusters   K pairs of neighbours
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from maskbench.errors import ConfigError
from maskbench.ops.precision import full_precision
from maskbench.ops.suppress import survivors

PAIRS = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Distances are worked out in chunks of at most this many pairs: 4 MB, which a cache may hold, or 256 MB on a GPU,
which is slow to be told of many chunks."""
SEEDS_AT_ONCE = 2048
"""Seeds that are worked on side by side, so that a chunk has points enough for a product to be worth its start."""
ARRIVED = 1e-3
"""Bandwidths that a seed moves at most in its last step (scikit-learn's)."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """The foreground cells of one image.

    Raises:
        ValueError: the fields differ in length, or a margin's dimensions from the embedding's.
    """

    embedding: Float[Tensor, "P E"]
    cell: Int64[Tensor, "P 2"]
    """Row and column on the map."""
    label: Int64[Tensor, " P"]
    """Classes, which never share a cluster; all zero where the embedding tells classes apart, or nobody wants it to."""
    seed: Float[Tensor, " P"]
    """How sure each is of lying at an object's centre, in [0, 1]; ones where nothing was learned."""
    margin: Float[Tensor, "P E"] | None = None
    """σ of the cluster that each would open, where it is learned."""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ("embedding", "cell", "label", "seed")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"a foreground cell is missing a field: {lengths}")
        if self.margin is not None and self.margin.shape != self.embedding.shape:
            raise ValueError(
                f"one σ for each dimension of each cell: margins {tuple(self.margin.shape)}"
                f" but embeddings {tuple(self.embedding.shape)}"
            )

    def __len__(self) -> int:
        return len(self.label)


class Grouping(NamedTuple):
    """The clusters of one image."""

    member: Int64[Tensor, " P"]
    """Cluster of each pixel, −1 where a clusterer leaves one out."""
    centres: Float[Tensor, "M E"]
    distance: Float[Tensor, " P"]
    """Of each pixel to its cluster's centre, in bandwidths; infinite where it has none."""


@runtime_checkable
class Clusterer(Protocol):
    """How foreground cells become objects."""

    def __call__(self, images: Sequence[Pixels]) -> list[Grouping]:
        """The clusters of each image."""


# Mean-shift ----------------------------------------------------------------------------------------------------------


def flat(half: Float[Tensor, "_p _s"], bandwidth: float) -> Float[Tensor, "_p _s"]:
    """1 within the bandwidth, from −d²/2, which is overwritten."""
    return half.ge_(-(bandwidth**2) / 2)


def gaussian(half: Float[Tensor, "_p _s"], bandwidth: float) -> Float[Tensor, "_p _s"]:
    """exp(−d²/2h²), from −d²/2, which is overwritten."""
    return half.div_(bandwidth**2).exp_()


KERNELS: dict[str, Callable[[Tensor, float], Tensor]] = {kernel.__name__: kernel for kernel in (flat, gaussian)}
"""What a point weighs in the mean that a seed climbs to."""


@dataclass(frozen=True)
class MeanShift:
    """Clusters are the modes of the embeddings' density (Comaniciu & Meer, PAMI 2002).

    Cells spread evenly over each class are seeds. Cells that no mode reaches, an object too small to hold a seed, seed
    once more; in the end every cell joins the nearest mode of its class. The best supported mode comes first.

    Args:
        bandwidth: h.
        kernel: one of `KERNELS`.
        iterations: that a seed climbs at most (scikit-learn's).
        seeds: of an image, beside the one that every class has; all its cells if they are no more.

    Raises:
        ConfigError: no such kernel.
    """

    bandwidth: float = 1.5
    kernel: str = "flat"
    iterations: int = 300
    seeds: int = 2048

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ConfigError(f"kernel={self.kernel!r}: expected one of {', '.join(KERNELS)}")

    def __call__(self, images: Sequence[Pixels]) -> list[Grouping]:
        return [self._image(pixels) if len(pixels) else _nothing(pixels) for pixels in images]

    def _image(self, pixels: Pixels) -> Grouping:
        points = _apart(pixels.embedding, pixels.label, 10 * self.bandwidth)
        drawn = points[_spread_in_classes(pixels.label, self.seeds)]
        again = self.seeds if len(drawn) < len(points) else 0
        member, modes = mean_shift(
            points, self.bandwidth, seeds=drawn, again=again, kernel=self.kernel, iterations=self.iterations
        )
        centres = modes[:, : pixels.embedding.shape[1]]
        return Grouping(member, centres, _lengths(pixels.embedding - centres[member]) / self.bandwidth)


def mean_shift(
    points: Float[Tensor, "P E"],
    bandwidth: float,
    *,
    seeds: int | Float[Tensor, "S E"] = 2048,
    again: int = 0,
    kernel: str = "flat",
    iterations: int = 300,
) -> tuple[Int64[Tensor, " P"], Float[Tensor, "M E"]]:
    """Mean-shift on one set of points; with a flat kernel scikit-learn's `MeanShift(bandwidth=…, seeds=…)`.

    Seeds climb to the mean of the points around them. Of modes closer than the bandwidth the one with most points
    around it remains, and every point joins the nearest. Distances come of products in the points' own precision: in
    single precision a bandwidth should be no less than a five-hundredth of the points' extent.

    Args:
        points: to cluster.
        bandwidth: h.
        seeds: where to start, or from how many of the points, evenly spread over the rows.
        again: how many of the points that no mode reaches seed once more.
        kernel: one of `KERNELS`.
        iterations: that a seed climbs at most.

    Returns:
        the mode of each point, and the modes, the best supported first.

    Raises:
        ValueError: there is no point around any seed.
    """
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.long, device=points.device), points
    start = seeds if isinstance(seeds, Tensor) else _spread(points, seeds)
    climbed = _climb(start, points, bandwidth, kernel, iterations)
    modes = _settled(climbed, bandwidth)
    if len(modes) == 0:
        raise ValueError(f"none of {len(points)} points lies within {bandwidth} of any of {len(start)} seeds")
    distance, member = nearest(points, modes)
    missed = points[distance > bandwidth]
    if again and len(missed):
        found = _climb(_spread(missed, again), points, bandwidth, kernel, iterations)
        modes = _settled(torch.cat([climbed, found]), bandwidth)
        member = nearest(points, modes)[1]
    return member, modes


def keep_apart(points: Float[Tensor, "M E"], distance: float) -> Bool[Tensor, " M"]:
    """Greedy suppression: a point stays unless a point before it stays within `distance`."""
    return survivors(torch.cdist(points, points) < distance)


def _apart(points: Float[Tensor, "P E"], label: Int64[Tensor, " P"], gap: float) -> Float[Tensor, "P D"]:
    """Points with coordinates more, by which no two classes come as near as two of these points, and `gap` more.

    The classes found stand at corners of a cube, one coordinate for each binary digit of their number: in a row they
    would reach far, and products in single precision lose what is small beside a large coordinate.
    """
    found, number = label.unique(return_inverse=True)
    digits = torch.arange((len(found) - 1).bit_length(), device=label.device)
    side = _lengths(points.amax(dim=0) - points.amin(dim=0)) + gap
    return torch.cat([points, side * (number[:, None] >> digits & 1)], dim=1)


def _spread_in_classes(label: Int64[Tensor, " P"], count: int) -> Int64[Tensor, " S"]:
    """Rows evenly spread over each class: `count` or fewer, and the first of each class."""
    ordered, rows = label.sort(stable=True)
    drawn = torch.arange(len(rows), device=rows.device) % _step(len(rows), count) == 0
    drawn[1:] |= ordered[1:] != ordered[:-1]
    return rows[drawn]


def _spread(points: Float[Tensor, "P E"], count: int) -> Float[Tensor, "S E"]:
    """At most `count` of the points, evenly spread over the rows."""
    return points[:: _step(len(points), count)]


def _step(rows: int, count: int) -> int:
    return -(-rows // count)


def _climb(
    seeds: Float[Tensor, "S E"], points: Float[Tensor, "P E"], bandwidth: float, kernel: str, iterations: int
) -> Float[Tensor, "S _"]:
    """A row for each seed: the weight of the points around it before its last step, and where that step led.

    A seed that has arrived climbs no more; one without a point around it stays.
    """
    origin = points.mean(dim=0)  # about which products are most precise
    raised = _raised(points - origin)
    places, support = seeds - origin, seeds.new_zeros(len(seeds))
    moving = torch.arange(len(seeds), device=seeds.device)
    for _ in range(iterations):
        before = places[moving]
        places[moving], support[moving] = _means(before, raised, bandwidth, kernel)
        moving = moving[_lengths(places[moving] - before) > ARRIVED * bandwidth]
        if len(moving) == 0:
            break
    return torch.cat([support[:, None], places + origin], dim=1)


def _raised(points: Float[Tensor, "P E"]) -> Float[Tensor, "E+2 P"]:
    """Columns (p, 1, −p²/2), whose product with (s, −s²/2, 1) is −|p − s|²/2, and whose sum has a total and a count."""
    return torch.cat([points.T, torch.ones_like(points[None, :, 0]), -points.square().sum(dim=1)[None] / 2])


def _means(
    places: Float[Tensor, "S E"], raised: Float[Tensor, "_ P"], bandwidth: float, kernel: str
) -> tuple[Float[Tensor, "S E"], Float[Tensor, " S"]]:
    """The weighted mean of the points as seen from each place (itself where there are none), and their weight."""
    totals = []
    for part in places.split(SEEDS_AT_ONCE):
        own = torch.cat([part.T, -part.square().sum(dim=1)[None] / 2, torch.ones_like(part[None, :, 0])])
        total = torch.zeros_like(own[:-1])
        for points in _chunks(raised, len(part), dim=1):
            with full_precision(places.device):
                # Points go down and seeds across: a product with few rows is fast, one with few columns is not.
                total += points[:-1] @ KERNELS[kernel](points.T @ own, bandwidth)
        totals.append(total)
    sums = torch.cat(totals, dim=1)
    mean, weight = (sums[:-1] / sums[-1]).T, sums[-1]
    return torch.where(weight[:, None] > 0, mean, places), weight


def _settled(climbed: Float[Tensor, "S _"], bandwidth: float) -> Float[Tensor, "M E"]:
    """The modes that stay when those near a better supported one go, by descending support.

    Of modes of equal support the larger in the order of coordinates comes first, as in scikit-learn.
    """
    modes = climbed[climbed[:, 0] > 0].unique(dim=0).flip(0)[:, 1:]
    stay = modes[:0]
    for part in modes.split(SEEDS_AT_ONCE):
        free = part[(torch.cdist(part, stay) >= bandwidth).all(dim=1)]
        stay = torch.cat([stay, free[keep_apart(free, bandwidth)]])
    return stay


def nearest(
    points: Float[Tensor, "P E"], centres: Float[Tensor, "M E"]
) -> tuple[Float[Tensor, " P"], Int64[Tensor, " P"]]:
    """Distance to the nearest centre, and which one it is; infinite and −1 where there is none at all."""
    if not len(centres):
        return points.new_full((len(points),), torch.inf), torch.full((len(points),), -1, device=points.device)
    parts = [torch.cdist(part, centres).min(dim=1) for part in _chunks(points, len(centres))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _chunks(rows: Tensor, columns: int, dim: int = 0) -> tuple[Tensor, ...]:
    return rows.split(max(1, PAIRS.get(rows.device.type, PAIRS["cpu"]) // columns), dim=dim)


# Sequential suppression ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seeds:
    """The surest centre takes what lies around it, then the surest that is left (Neven et al., CVPR 2019, arXiv
    1906.11109, section 3.3).

    The cell with the highest seed score opens a cluster, whose centre is its embedding, and takes all cells of its
    class within the bandwidth that no cluster has taken before. Where margins are learned, that cell's σ stands for the
    bandwidth: it takes those with exp(−Σ (e − c)²/2σ²) > 0.5.

    Args:
        threshold: that a seed score must exceed to open a cluster. What no cluster has taken then is left out.
        bandwidth: where no margin is learned.
        smallest: cells that a cluster must have; those of a smaller one are left out, and no other cluster gets them.
        clusters: that are opened at most, small ones among them: a network that knows nothing yet opens one a cell.
    """

    threshold: float = 0.5
    bandwidth: float = 1.5
    smallest: int = 1
    clusters: int = 1000

    def __call__(self, images: Sequence[Pixels]) -> list[Grouping]:
        return [self._image(pixels) if len(pixels) else _nothing(pixels) for pixels in images]

    def _image(self, pixels: Pixels) -> Grouping:
        reach = self._reach(pixels)
        member, distance = torch.full_like(pixels.label, -1), torch.full_like(pixels.seed, torch.inf)
        left = pixels.seed.clone()
        opened: list[int] = []
        for _ in range(self.clusters):
            best = left.max(dim=0)
            if best.values <= self.threshold:
                break
            top = int(best.indices)
            away = _lengths((pixels.embedding - pixels.embedding[top]) / reach[top])
            taken = (member < 0) & (pixels.label == pixels.label[top]) & (away < 1)
            taken[top] = True  # also with a margin of nothing
            member.masked_fill_(taken, len(opened))
            left.masked_fill_(taken, -torch.inf)
            distance = torch.where(taken, away, distance)
            opened.append(top)
        return _without_small(Grouping(member, pixels.embedding[opened], distance), self.smallest)

    def _reach(self, pixels: Pixels) -> Float[Tensor, "P E"]:
        """How far a cluster that opens at each cell reaches along each dimension."""
        if pixels.margin is None:
            return torch.full_like(pixels.embedding, self.bandwidth)
        return math.sqrt(2 * math.log(2)) * pixels.margin


def _without_small(grouping: Grouping, smallest: int) -> Grouping:
    """The clusters of at least `smallest` pixels, numbered anew; the others' pixels are left out."""
    size = _sizes(grouping.member[grouping.member >= 0], len(grouping.centres))
    large = size >= smallest
    number = torch.where(large, large.cumsum(dim=0) - 1, -1)
    member = torch.cat([number, number.new_tensor([-1])])[grouping.member]
    return Grouping(member, grouping.centres[large], grouping.distance.masked_fill(member < 0, torch.inf))


# Connected components ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AffinityComponents:
    """Neighbouring cells of a class with like embeddings belong together, and so does what such neighbours connect.

    A cluster's centre is the mean of its embeddings; clusters are numbered by the first of their pixels.

    Args:
        threshold: distance of two embeddings below which neighbours are joined; it stands for the bandwidth.
        connectivity: how many neighbours a cell has, 4 or 8.

    Raises:
        ConfigError: another connectivity.
    """

    threshold: float = 0.5
    connectivity: int = 4

    def __post_init__(self) -> None:
        if self.connectivity not in NEIGHBOURS:
            raise ConfigError(f"connectivity={self.connectivity}: expected one of {', '.join(map(str, NEIGHBOURS))}")

    def __call__(self, images: Sequence[Pixels]) -> list[Grouping]:
        return [self._image(pixels) if len(pixels) else _nothing(pixels) for pixels in images]

    def _image(self, pixels: Pixels) -> Grouping:
        one, other = _neighbours(pixels.cell, self.connectivity)
        alike = _lengths(pixels.embedding[one] - pixels.embedding[other]) < self.threshold
        joined = alike & (pixels.label[one] == pixels.label[other])
        member = connected(len(pixels), one[joined], other[joined])
        centres = _means_of(pixels.embedding, member)
        return Grouping(member, centres, _lengths(pixels.embedding - centres[member]) / self.threshold)


NEIGHBOURS = {4: ((0, 1), (1, 0)), 8: ((0, 1), (1, 0), (1, 1), (1, -1))}
"""Row and column from a cell to those neighbours that come after it: a pair is looked at once."""


def connected(count: int, one: Int64[Tensor, " K"], other: Int64[Tensor, " K"]) -> Int64[Tensor, " P"]:
    """The connected component of each of `count` points, of which `one` and `other` are joined in pairs.

    Every point knows a root, at first itself. Each round hooks the larger root of a joined pair onto the smaller, then
    each point jumps to the root of its root until none moves: few rounds of tensor work, whatever the components' form.

    Returns:
        components, numbered by their first point.
    """
    root = torch.arange(count, device=one.device)
    while bool((root[one] != root[other]).any()):
        low, high = torch.minimum(root[one], root[other]), torch.maximum(root[one], root[other])
        root = _flattened(root.scatter_reduce(0, high, low, "amin"))
    return root.unique(return_inverse=True)[1]


def _flattened(root: Int64[Tensor, " P"]) -> Int64[Tensor, " P"]:
    """The root of the root of … each point."""
    while not torch.equal(beyond := root[root], root):
        root = beyond
    return root


def _neighbours(cell: Int64[Tensor, "P 2"], connectivity: int) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """The pairs of rows whose cells are neighbours."""
    rows, columns = (cell.amax(dim=0) + 1).tolist()
    pixel = torch.full((rows + 1, columns + 2), -1, device=cell.device)  # with room for neighbours beyond the map
    row, column = cell[:, 0], cell[:, 1] + 1
    pixel[row, column] = torch.arange(len(cell), device=cell.device)
    others = torch.stack([pixel[row + down, column + right] for down, right in NEIGHBOURS[connectivity]], dim=1)
    one, which = (others >= 0).nonzero().unbind(dim=1)
    return one, others[one, which]


def _means_of(values: Float[Tensor, "P E"], member: Int64[Tensor, " P"]) -> Float[Tensor, "M E"]:
    """Mean of the values of each cluster; none is empty."""
    size = _sizes(member)
    return values.new_zeros(len(size), values.shape[1]).index_add(0, member, values) / size[:, None]


# Shared --------------------------------------------------------------------------------------------------------------


def _nothing(pixels: Pixels) -> Grouping:
    """The clusters of an image without foreground."""
    return Grouping(pixels.label, pixels.embedding, pixels.seed)


def _sizes(member: Int64[Tensor, " P"], count: int = 0) -> Int64[Tensor, " M"]:
    """Pixels of each cluster, of which there are at least `count`."""
    return torch.bincount(member, minlength=count)


def _lengths(vectors: Float[Tensor, "*P E"]) -> Float[Tensor, "*P"]:
    return torch.linalg.vector_norm(vectors, dim=-1)
