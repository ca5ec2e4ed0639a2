"""Detections and the pixels that they gather: the stages of the hybrid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from drawing.layers import boxes, dots, row_colour, square, tiles
from drawing.panels import Panel
from drawing.seen import Seen, embedded, names
from maskbench.methods.hybrid import Hybrid, gathered


def hybrid(method: Hybrid, raw: Any, seen: Seen) -> Iterator[Panel]:
    ((cells, corners, *_),) = method.detections(raw, [seen.frame])
    cells, corners = cells[: len(seen.found)], corners[: len(seen.found)]
    colours = [row_colour(row) for row in range(len(cells))]
    speaking = dots(raw.locations.point[cells], colours, 30)
    caption = f"detections after NMS, boxes and locations: {len(cells)}"
    yield Panel(caption, [seen.ground.dimmed, boxes(corners, colours), speaking])
    pixels = raw.pixels[0].float()
    yield embedded(pixels, seen.ground.inside(pixels.shape[1:]), seen, "pixel embedding")
    few = cells[:4]
    maps = gathered(pixels, raw.embedding[0, few].float(), raw.sharpness[0, few].float())
    each = [
        [seen.ground.map(own), boxes(box[None], [colour]), seen.ground.view]
        for own, box, colour in zip(maps, corners[:4], colours[:4], strict=True)
    ]
    height, width = seen.frame.resized
    drawn = tiles(each, square(len(each), 2), width / height, colours[:4])
    yield Panel(f"how near pixels lie, margin at one half, {names(len(each))}", [drawn])
