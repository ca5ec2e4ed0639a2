"""Maps, and how their foreground is shared out: the stages of bottom-up methods.

P foreground cells
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from drawing.layers import (
    GREY,
    WHITE,
    dots,
    ellipses,
    paths,
    plane,
    principal,
    rings,
    row_colour,
    scattered,
    ways,
    wheel,
)
from drawing.panels import Panel
from drawing.seen import Seen, embedded
from maskbench.methods.bottom_up import BottomUp
from maskbench.methods.centre_offset import CentreOffset
from maskbench.methods.discriminative import Discriminative
from maskbench.methods.flow_field import FlowField
from maskbench.methods.semantic import Semantic
from maskbench.methods.spatial_embedding import Raw, SpatialEmbedding
from maskbench.ops.cluster import MeanShift
from maskbench.ops.flows import followed, sinks
from maskbench.ops.grouping import Groups, SemanticMap, chosen

WAYPOINTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Steps after which it is looked where a cell is that follows the flow."""
PATHS = 600
"""That are drawn, at most."""


def semantic(method: Semantic, raw: Any, seen: Seen) -> Iterator[Panel]:
    known = mapped(method, raw, seen)
    yield foreground(known, seen)
    white = seen.ground.map(scattered(torch.ones(int(known.foreground.sum()), 3), known.foreground))
    yield Panel("cells that are likelier an object than background", [seen.ground.dimmed, white])
    yield shared(grouped(method, raw, known), known, seen, "components, cells that hang together", method)


def discriminative(method: Discriminative, raw: Any, seen: Seen) -> Iterator[Panel]:
    known = mapped(method, raw, seen)
    groups = grouped(method, raw, known)
    yield foreground(known, seen)
    (pixels,) = method.pixels(raw, [known])
    yield embedded(raw.embedding[0].float(), known.foreground, seen, "embedding")
    (found,) = method.cluster([pixels])
    mean, axes = principal(pixels.embedding, 2)
    places, middles = ((own - mean) @ axes for own in (pixels.embedding, found.centres))
    layers, caption = (
        plane(places, colours_of(groups, method, seen)),
        f"the embedding's main plane, clusters: {len(groups)}",
    )
    if isinstance(method.cluster, MeanShift):
        reach = torch.full_like(middles, method.cluster.bandwidth)
        layers.append(ellipses(middles, reach, [WHITE for _ in middles]))
        caption += ", rings: the bandwidth"
    yield Panel(caption, layers)
    yield shared(groups, known, seen, "clusters on the photo", method)


def centre_offset(method: CentreOffset, raw: Any, seen: Seen) -> Iterator[Panel]:
    known = mapped(method, raw, seen)
    groups = grouped(method, raw, known)
    yield foreground(known, seen)
    heat, offset = raw.heat[0, 0].float(), raw.offset[0].float()
    centres = seen.ground.in_pixels(method.peaks(heat, seen.frame).cell, heat.shape)
    yield Panel(f"heat map of centres, peaks: {len(centres)}", [seen.ground.map(heat), rings(centres)])
    own = offset[:, known.foreground].T
    yield field(own, known, seen, f"offsets to the centre, up to {longest(own) * known.stride:.0f} px")
    pointed = seen.ground.in_pixels(known.foreground.nonzero() + own, heat.shape)
    caption = "where the cells point, in the colour of the nearest centre"
    yield Panel(caption, [seen.ground.dimmed, dots(pointed, colours_of(groups, method, seen))])


def flow_field(method: FlowField, raw: Any, seen: Seen) -> Iterator[Panel]:
    known = mapped(method, raw, seen)
    colours, inside = colours_of(grouped(method, raw, known), method, seen), known.foreground
    yield foreground(known, seen)
    flow = raw.flow[0].float() / method.flow_scale
    own = flow[:, inside].T
    yield field(own, known, seen, "flow of each cell")
    times = [*(steps for steps in WAYPOINTS if steps < method.steps), method.steps]
    places = torch.stack([followed(flow, inside, steps) for steps in times], dim=1)
    middles = sinks(places[:, -1], inside.shape, method.window, method.smallest)
    some = slice(None, None, max(1, -(-len(places) // PATHS)))
    ends = rings(seen.ground.in_pixels(middles, inside.shape), 30, "black")
    lines = paths(seen.ground.in_pixels(places, inside.shape)[some], colours[some])
    yield Panel(f"paths of {method.steps} steps, sinks: {len(middles)}", [seen.ground.dimmed, lines, ends])


def spatial_embedding(method: SpatialEmbedding, raw: Any, seen: Seen) -> Iterator[Panel]:
    known = mapped(method, raw, seen)
    groups, shape = grouped(method, raw, known), known.foreground.shape
    yield foreground(known, seen, "seed map: how well a cell finds its centre")
    pixels = method.pixels(known, Raw(*(own[0] for own in raw[:3])))
    unit = known.stride / method.step  # in pixels
    assert pixels.margin is not None
    wide = unit * pixels.margin.mean(dim=1)
    low, high = (float(wide.quantile(share)) if len(wide) else 0.0 for share in (0.02, 0.98))
    full = torch.full(shape, torch.nan)
    full[known.foreground] = wide
    caption = f"σ that the cells ask for, {low:.1f} (dark) to {high:.1f} px"
    yield Panel(caption, [seen.ground.dimmed, seen.ground.map(full, low, max(high, low + 1e-3))])
    (found,) = method.cluster([pixels])
    opened = [int((pixels.embedding == centre).all(dim=1).nonzero()[0]) for centre in found.centres]
    colours = colours_of(groups, method, seen)
    places = seen.ground.in_pixels(pixels.embedding / method.step, shape)
    half = math.sqrt(2 * math.log(2)) * unit * pixels.margin.flip(1)  # where it is one half
    around = ellipses(places[opened], half[opened], colours[opened])
    caption = f"where the cells point, and margins of the seeds: {len(opened)}"
    yield Panel(caption, [seen.ground.dimmed, dots(places, colours), around])


def mapped(method: BottomUp, raw: Any, seen: Seen) -> SemanticMap:
    """The semantic map."""
    (known,) = method.maps(raw, [seen.frame])
    return known


def grouped(method: BottomUp, raw: Any, known: SemanticMap) -> Groups:
    """How its foreground is shared out."""
    (groups,) = method.scored(raw, [known], method.groups(raw, [known]))
    return groups


def colours_of(groups: Groups, method: BottomUp, seen: Seen) -> Tensor:
    """RGBA of each foreground cell, [P 4]: that of its instance, grey where it is of none that is shown."""
    kept, _ = chosen(groups, method.score, method.smallest, method.point)
    kept = kept[: len(seen.found)]
    palette = torch.tensor([(*GREY, 1.0)]).repeat(len(groups) + 1, 1)  # the last, which −1 finds, is of no group
    palette[kept] = torch.tensor([row_colour(row) for row in range(len(kept))]).view(-1, 4)
    return palette[groups.member]


def foreground(known: SemanticMap, seen: Seen, what: str = "probability that a cell is of an object") -> Panel:
    """How probable the likeliest class of each cell is."""
    return Panel(what, [seen.ground.map(known.probabilities[:-1].amax(dim=0))])


def shared(groups: Groups, known: SemanticMap, seen: Seen, what: str, method: BottomUp) -> Panel:
    """The foreground, each cell in the colour of its instance."""
    painted = scattered(colours_of(groups, method, seen), known.foreground)
    return Panel(f"{what}: {len(groups)}", [seen.ground.dimmed, seen.ground.map(painted)])


def field(vectors: Tensor, known: SemanticMap, seen: Seen, what: str) -> Panel:
    """Vectors of the foreground, [P 2] in rows and columns."""
    colours = torch.as_tensor(ways(vectors, longest(vectors)))
    painted = seen.ground.map(scattered(colours, known.foreground))
    return Panel(what, [seen.ground.dimmed, painted, wheel])


def longest(vectors: Tensor) -> float:
    """The length of vectors [P 2], but for a few."""
    return float(vectors.norm(dim=1).quantile(0.98)) if len(vectors) else 0.0
