"""What can lie on a photo or in a tile: boxes, points, paths, masks, and numbers as colours.

h w cells of a map   K boxes, masks or tiles   P points   E dimensions
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.patches import Ellipse, Rectangle
from torch import Tensor
from torch.nn import functional as F

from drawing.panels import HEAT, TEXT, Paint
from maskbench.runtime.colours import PALETTE

Colour = tuple[float, ...]
"""RGB or RGBA, 0…1."""
Colours = Sequence[Colour] | Tensor
"""One each."""
GREY, WHITE = (0.62, 0.62, 0.62), (1.0, 1.0, 1.0)


def row_colour(row: int, opacity: float = 1.0) -> Colour:
    """The colour that an instance of this row has wherever it is drawn."""
    red, green, blue = PALETTE[row % len(PALETTE)]
    return red / 255, green / 255, blue / 255, opacity


def boxes(corners: Tensor, colours: Colours, width: float = 1.6) -> Paint:
    """Outlines of boxes, xyxy [K 4]; the first lies on top."""
    drawn = [Rectangle((x, y), right - x, bottom - y) for x, y, right, bottom in corners.flip(0).tolist()]
    return lambda axes: axes.add_collection(
        PatchCollection(drawn, facecolors="none", edgecolors=[tuple(own) for own in colours][::-1], linewidths=width)
    )


def ellipses(middles: Tensor, reach: Tensor, colours: Colours) -> Paint:
    """Outlines of ellipses around middles, half as wide and high as `reach` says; both are x and y, [K 2]."""
    pairs = zip(middles.tolist(), (2 * reach).tolist(), strict=True)
    drawn = [Ellipse((x, y), wide, high) for (x, y), (wide, high) in pairs]
    return lambda axes: axes.add_collection(
        PatchCollection(drawn, facecolors="none", edgecolors=np.asarray(colours), linewidths=1.6)
    )


def dots(places: Tensor, colours: Colours, size: float = 8.0) -> Paint:
    """Points at x and y, [P 2], of so many square points of paper."""
    x, y = places.T.numpy()
    return lambda axes: axes.scatter(x, y, s=size, c=np.asarray(colours).reshape(len(x), 4), linewidths=0)


def rings(places: Tensor, size: float = 60.0, inside: str = "none") -> Paint:
    """Rings at x and y, [P 2], of so many square points of paper, that are seen on anything."""
    x, y = places.T.numpy()
    return lambda axes: axes.scatter(x, y, s=size, facecolors=inside, edgecolors="cyan", linewidths=1.5)


def paths(places: Tensor, colours: Colours) -> Paint:
    """Lines through x and y, [P steps 2]."""
    lines = list(places.numpy())
    return lambda axes: axes.add_collection(LineCollection(lines, colors=np.asarray(colours), linewidths=1.2))


def tiles(each: Sequence[Sequence[Paint]], columns: int, shape: float, edges: Sequence[Colour]) -> Paint:
    """Small panels in rows of so many, in the middle of one panel.

    Args:
        each: the layers of the tiles, row by row.
        columns: of them.
        shape: width over height.
        edges: the colour around each.
    """

    def paint(axes: Axes) -> None:
        high = axes.bbox.height / axes.bbox.width  # of the panel, whose width is 1
        rows, gap = -(-len(each) // columns), 0.025
        wide = min((1 - (columns + 1) * gap) / columns, (high - (rows + 1) * gap) / rows * shape)
        left = (1 - columns * (wide + gap) + gap) / 2
        top = (high + rows * (wide / shape + gap) - gap) / 2
        for place, (layers, edge) in enumerate(zip(each, edges, strict=True)):
            row, column = divmod(place, columns)
            x, y = left + column * (wide + gap), top - wide / shape - row * (wide / shape + gap)
            tile = axes.inset_axes((x, y / high, wide, wide / shape / high), facecolor="black")
            for layer in layers:
                layer(tile)
            tile.set(xticks=[], yticks=[], aspect="auto")
            for spine in tile.spines.values():
                spine.set(color=edge, linewidth=3)

    def nothing(axes: Axes) -> None:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", fontsize=TEXT, color=GREY)

    return paint if len(each) else nothing


def square(count: int, most: int) -> int:
    """Columns of so many tiles that are as many across as down, or of the most that there may be."""
    return min(most, math.ceil(count**0.5))


def mask(values: Tensor) -> Paint:
    """Probabilities inside a box, [h w], as large as their tile."""
    return lambda axes: axes.imshow(values.numpy(), cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")


def window(corners: Tensor, margin: float = 0.15) -> list[float]:
    """A square around all of these boxes, [K 4], with so much more on each side."""
    low, high = corners[:, :2].amin(dim=0), corners[:, 2:].amax(dim=0)
    half = float((high - low).amax()) * (0.5 + margin)
    x, y = ((low + high) / 2).tolist()
    return [x - half, y - half, x + half, y + half]


def plane(places: Tensor, colours: Colours) -> list[Paint]:
    """Points in a plane of their own, [P 2], a unit as long down as across, on black."""

    def look(axes: Axes) -> None:
        # seen is what all points but a few strays take
        spread = places if len(places) else torch.zeros(1, 2)
        low, high = spread.quantile(0.005, dim=0), spread.quantile(0.995, dim=0)
        (x, y), (wide, tall) = ((low + high) / 2).tolist(), (high - low).tolist()
        shape = axes.bbox.height / axes.bbox.width
        half = 0.6 * max(wide, tall / shape, 1e-3)
        axes.set(xlim=(x - half, x + half), ylim=(y - half * shape, y + half * shape), facecolor="black")

    return [dots(places, colours), look]


# Values as colours ----------------------------------------------------------------------------------------------------


def principal(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean [E] and the main axes [E count] of vectors [P E]; axes that they have not are zero."""
    mean = vectors.mean(dim=0) if len(vectors) else vectors.new_zeros(vectors.shape[1])
    axes = torch.linalg.eigh((vectors - mean).T @ (vectors - mean)).eigenvectors.flip(1)[:, :count]
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()  # which way is up is nobody's choice
    return mean, F.pad(axes, (0, count - axes.shape[1]))


def as_colours(vectors: Tensor) -> Tensor:
    """RGB [P 3] of vectors [P E]: where they lie along their three main axes."""
    if not len(vectors):
        return vectors.new_zeros(0, 3)
    mean, axes = principal(vectors, 3)
    along = (vectors - mean) @ axes
    low, high = along.quantile(0.02, dim=0), along.quantile(0.98, dim=0)
    return 0.1 + 0.9 * ((along - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def ways(vectors: Tensor, longest: float) -> np.ndarray:
    """RGB [… 3] of vectors [… 2] in rows and columns: the hue is their direction, light ones are long."""
    down, right = vectors.unbind(dim=-1)
    length = (torch.hypot(down, right) / max(longest, 1e-6)).clamp(max=1)
    hue = (torch.atan2(down, right) / (2 * torch.pi)) % 1
    return hsv_to_rgb(torch.stack([hue, 0.35 + 0.65 * length, 0.3 + 0.7 * length], dim=-1).numpy())


def wheel(axes: Axes, share: float = 0.2) -> None:
    """Which colour is which way, in the lower right corner; so much of the panel's height."""
    side = torch.linspace(-1, 1, 81)
    vectors = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1)
    disc = (vectors.norm(dim=-1) <= 1).float()
    wide = share * axes.bbox.height / axes.bbox.width
    corner = axes.inset_axes((0.98 - wide, 0.02, wide, share))
    corner.imshow(np.dstack([ways(vectors, 1.0), disc]), interpolation="bilinear", zorder=2)
    corner.axis("off")


def scattered(values: Tensor, inside: Tensor) -> np.ndarray:
    """Colours [P 3 or 4] of the cells inside, Bool[h w], row by row, as a map [h w 4]; the others are transparent."""
    full = torch.zeros(*inside.shape, 4)
    full[..., 3] = inside
    full[inside, : values.shape[1]] = values
    return full.numpy()
