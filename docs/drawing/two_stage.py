"""Proposals, boxes, masks in boxes: the stages of two-stage methods.

N detections   m cells a side of a mask   h w cells of a map   S semantic classes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from drawing.layers import WHITE, boxes, dots, mask, row_colour, square, tiles, window
from drawing.panels import Paint, Panel
from drawing.seen import Seen, by, names
from maskbench.methods.cascade_mask_rcnn import CascadeMaskRCNN
from maskbench.methods.htc import HTC
from maskbench.methods.mask_rcnn import MaskRCNN
from maskbench.methods.point_rend import PointRend
from maskbench.ops.regions import Detected
from maskbench.ops.suppress import best

PROPOSALS = 100
"""That are drawn, the best."""


def mask_rcnn(method: MaskRCNN, raw: Any, seen: Seen) -> Iterator[Panel]:
    yield proposed(method, raw, seen)
    found = detected(method.detections(raw.features, starts(method, raw, seen), [seen.frame]), seen)
    yield boxed(found, seen, "of the box head")
    yield masked(method.masks(raw.features, [found]), "mask probabilities")


def cascade_mask_rcnn(method: CascadeMaskRCNN, raw: Any, seen: Seen) -> Iterator[Panel]:
    yield proposed(method, raw, seen)
    proposals = starts(method, raw, seen)
    found = detected(method.detections(raw.features, proposals, [seen.frame]), seen)
    yield moved(method, lambda own: method.pool(raw.features, own, method.cascade.pool), proposals, found, seen)
    yield boxed(found, seen, "of the last stage")
    yield masked(method.masks(raw.features, [found]), "the heads' mean probabilities")


def htc(method: HTC, raw: Any, seen: Seen) -> Iterator[Panel]:
    if raw.semantic is not None:
        yield branched(method, raw.semantic.logits[0].float().softmax(dim=0), seen)
    yield proposed(method, raw, seen)
    proposals, features = starts(method, raw, seen), (raw.features, raw.semantic)
    found = detected(method.detections(*features, proposals, [seen.frame]), seen)
    yield moved(method, lambda own: method.pool(*features, own, method.cascade.pool), proposals, found, seen)
    few = Detected(*(field[:3] for field in found))
    pooled = method.pool(*features, [few.boxes], method.mask_heads[0].pool)
    stages = [method.mask_logits(stage, pooled) for stage in range(len(method.mask_heads))]
    maps = torch.stack([method.mask_kind.margin(logits, few.labels).sigmoid() for logits in stages], dim=1)
    edges = [row_colour(row) for row in range(len(maps)) for _ in stages]
    each = [[mask(own)] for own in maps.flatten(0, 1)]
    yield Panel(
        f"masks of the stages, from left to right, {names(len(few.labels))}", [tiles(each, len(stages), 1, edges)]
    )


def branched(method: HTC, probabilities: Tensor, seen: Seen) -> Panel:
    """The semantic branch, [S h w]: of objects against background, or whatever the data set has maps of."""
    if method.semantic_classes is None:
        return Panel("semantic branch: probability of an object", [seen.ground.map(probabilities[:-1].amax(dim=0))])
    colours = torch.tensor([row_colour(label) for label in range(len(probabilities))])
    caption = f"semantic branch: likeliest of {len(probabilities)} classes"
    return Panel(caption, [seen.ground.map(colours[probabilities.argmax(dim=0)])])


def point_rend(method: PointRend, raw: Any, seen: Seen) -> Iterator[Panel]:
    yield proposed(method, raw, seen)
    found = detected(method.detections(raw.features, starts(method, raw, seen), [seen.frame]), seen)
    yield boxed(found, seen, "of the box head")
    few = Detected(*(field[:4] for field in found))
    coarse = method.coarse(raw.features, [few.boxes])
    yield masked(method.mask_kind.margin(coarse, few.labels).sigmoid(), "coarse masks", 2)
    steps = method.refinement.subdivided(raw.features[0], [few.boxes], coarse, few.labels, method.mask_kind)
    # a step that asks for every cell shows no choice
    asked = [points for points, refined in steps if points.shape[1] < refined.shape[1:].numel()]
    colours = [(1.0, 0.75 * (1 - step / max(1, len(asked) - 1)), 0.1, 1.0) for step in range(len(asked))]
    each: list[list[Paint]] = []
    for row, box in enumerate(few.boxes):
        places = [box[:2] + points[row] * (box[2:] - box[:2]) for points in asked]
        marks = [dots(own, [tint] * len(own), 4) for own, tint in zip(places, colours, strict=True)]
        each.append([seen.ground.dimmed, *marks, partial(seen.ground.view, window=box.tolist())])
    total = sum(points.shape[1] for points in asked)
    drawn = tiles(each, square(len(each), 2), 1, [row_colour(row) for row in range(len(each))])
    order = ", step by step, yellow to red" if len(asked) > 1 else ""
    yield Panel(f"{total} points asked anew in each{order}", [drawn])


TwoStage = MaskRCNN | CascadeMaskRCNN | HTC | PointRend


def starts(method: TwoStage, raw: Any, seen: Seen) -> list[Tensor]:
    """The proposals."""
    return method.rpn.boxes(raw.rpn, [seen.frame], training=False)


def proposed(method: TwoStage, raw: Any, seen: Seen) -> Panel:
    """The best proposals, the fainter the less sure the RPN is of them."""
    ((proposals, sure),) = method.rpn.proposals(raw.rpn, [seen.frame], training=False)
    drawn, colours = proposals[:PROPOSALS], [(1.0, 0.85, 0.2, max(0.15, float(own))) for own in sure[:PROPOSALS]]
    caption = f"proposals of the RPN: the best {len(drawn)} of {len(proposals)}"
    return Panel(caption, [seen.ground.dimmed, boxes(drawn, colours, 1.2)])


def detected(found: Sequence[Detected], seen: Seen) -> Detected:
    """Those that are drawn as instances; a method keeps their order."""
    return Detected(*(field[: len(seen.found)] for field in found[0]))


def boxed(found: Detected, seen: Seen, where: str) -> Panel:
    """The boxes that get a mask."""
    colours = [row_colour(row) for row in range(len(found.boxes))]
    return Panel(f"boxes {where} after NMS: {len(colours)}", [seen.ground.dimmed, boxes(found.boxes, colours)])


def masked(maps: Tensor, what: str, columns: int = 3) -> Panel:
    """The masks of the best, [N m m], inside their boxes."""
    each = [[mask(own)] for own in maps[: columns**2]]
    drawn = tiles(each, square(len(each), columns), 1, [row_colour(row) for row in range(len(each))])
    return Panel(f"{what}, {by(*maps.shape[1:])} cells, {names(len(each))}", [drawn])


def moved(
    method: CascadeMaskRCNN | HTC,
    pool: Callable[[Sequence[Tensor]], Tensor],
    proposals: Sequence[Tensor],
    found: Detected,
    seen: Seen,
) -> Panel:
    """The boxes of each stage, of the four detections that the cascade has moved most."""
    stages = method.cascade.stages(pool, proposals, [seen.frame])
    steps = torch.stack([proposals[0], *(own[0] for own, _ in stages)], dim=1)
    rows = [int((steps[:, -1] == box).all(dim=1).nonzero()[0]) for box in found.boxes]
    way = steps[rows]
    far = (way[:, 0] - way[:, -1]).abs().sum(dim=1)
    colours = [WHITE, *((1.0, 0.9 * (1 - own / way.shape[1]), 0.0) for own in range(1, way.shape[1]))]
    most = best(far, 4)
    each: list[list[Paint]] = [
        [seen.ground.dimmed, boxes(own.flip(0), colours[::-1], 2), partial(seen.ground.view, window=window(own))]
        for own in way[most]
    ]
    drawn = tiles(each, square(len(each), 2), 1, [row_colour(row) for row in most.tolist()])
    return Panel("white: proposals, yellow to red: boxes stage by stage", [drawn])
