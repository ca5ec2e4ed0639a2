"""Panels side by side, with a caption each: what a method makes of a photo, step by step.

All that is drawn lies in network pixels, x to the right and y down, so that photo, boxes and maps of any stride fit on
each other; a map covers the whole network input, of which the part that is photo is seen.

h w cells of a map   H W pixels   P points
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image
from torch import Tensor

from maskbench.ops.grouping import in_photo
from maskbench.runtime.colours import PALETTE
from maskbench.runtime.overlays import draw, readable
from maskbench.structures import Frame, Instances, Size

WIDTH, DPI, EDGE, GAP, COLUMNS = 1600, 100, 12, 36, 3
"""Pixels of a picture, an inch, and of the white around its panels and between them; how many lie side by side."""
TEXT, LINE = 19, 33
"""Points of a caption, and pixels from line to line."""
NUMBERS, NO_BREAK = "①②③④⑤⑥⑦⑧⑨", "\u00a0"
LARGEST = 300_000
"""Bytes of a picture."""
DIM = 0.5
"""What is left of the brightness of a photo that is drawn upon."""
HEAT = "magma"

Paint = Callable[[Axes], object]
"""Draws one layer of a panel or a tile."""


@dataclass(frozen=True)
class Panel:
    """What is drawn, one layer on the other, and what to read from it."""

    caption: str
    layers: Sequence[Paint]


@dataclass(frozen=True)
class Ground:
    """The photo that panels are about.

    Args:
        pixels: of the photo as stored, RGB bytes [H W 3].
        frame: what it is in the network input.
        padded: size of the network input.
    """

    pixels: np.ndarray
    frame: Frame
    padded: Size

    def photo(self, axes: Axes, brightness: float = 1.0) -> None:
        height, width = self.frame.resized
        axes.imshow(brightness * self.pixels / 255, extent=(0, width, height, 0), interpolation="bilinear")

    def dimmed(self, axes: Axes) -> None:
        """To be drawn upon."""
        self.photo(axes, DIM)

    def objects(self, instances: Instances) -> Paint:
        """The photo with instances on it, in the colours of their rows."""
        colours = [PALETTE[row % len(PALETTE)] for row in range(len(instances))]
        painted = draw(self.pixels, instances, colours=colours, zoom=readable(self.pixels))
        height, width = self.frame.resized
        return lambda axes: axes.imshow(painted, extent=(0, width, height, 0), interpolation="bilinear")

    def map(self, values: Tensor | np.ndarray, lowest: float = 0.0, highest: float = 1.0) -> Paint:
        """Numbers as heat, or colours [h w 3 or 4]."""
        height, width = self.padded
        shown, where = np.asarray(values), (0, width, height, 0)
        return lambda axes: axes.imshow(
            shown, extent=where, interpolation="nearest", cmap=HEAT, vmin=lowest, vmax=highest
        )

    def inside(self, size: Sequence[int]) -> Tensor:
        """Of so many cells of a map those that the photo covers, Bool[h w]."""
        return in_photo(size, self.frame, self.padded[0] // size[0], torch.device("cpu"))

    def in_pixels(self, cells: Tensor, size: Sequence[int]) -> Tensor:
        """Rows and columns on a map of `size`, [P 2], as x and y in network pixels."""
        return ((cells + 0.5) * self.padded[0] / size[0]).flip(-1)

    def view(self, axes: Axes, window: Sequence[float] | None = None) -> None:
        """Look at all of the photo, or at a part of it, xyxy."""
        height, width = self.frame.resized
        left, top, right, bottom = window or (0, 0, width, height)
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="auto")


# The picture ----------------------------------------------------------------------------------------------------------


def picture(panels: Sequence[Panel], ground: Ground) -> Image.Image:
    """All panels from left to right, numbered, in rows of `COLUMNS`, their captions above them."""
    height, width = ground.frame.resized
    wide = (WIDTH - 2 * EDGE - (COLUMNS - 1) * GAP) / COLUMNS
    high = wide * height / width
    captions = [wrapped(f"{NUMBERS[place]}{NO_BREAK}{panel.caption}", wide) for place, panel in enumerate(panels)]
    tops, tall = [], float(EDGE)
    for first in range(0, len(panels), COLUMNS):
        tops += [tall + LINE * max(map(len, captions[first : first + COLUMNS])) + EDGE] * COLUMNS
        tall = tops[-1] + high + EDGE
    tall = math.ceil(tall)
    figure = Figure(figsize=(WIDTH / DPI, tall / DPI), dpi=DPI, facecolor="white")
    for place, (panel, lines) in enumerate(zip(panels, captions, strict=True)):
        left, top = EDGE + place % COLUMNS * (wide + GAP), tops[place]
        for line, text in enumerate(lines):
            y = 1 - (top - EDGE - LINE * (len(lines) - line - 1)) / tall
            figure.text(left / WIDTH, y, text, fontsize=TEXT, va="baseline", color="0.1")
        axes = figure.add_axes((left / WIDTH, 1 - (top + high) / tall, wide / WIDTH, high / tall), facecolor="white")
        ground.view(axes)
        for layer in panel.layers:
            layer(axes)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="0.7", linewidth=0.8)
        if place % COLUMNS:
            x, y = (left - GAP / 2) / WIDTH, 1 - (top + high / 2) / tall
            figure.text(x, y, "›", fontsize=1.6 * TEXT, ha="center", va="center", color="0.4")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def wrapped(text: str, width: float) -> list[str]:
    """Lines of a caption that are no wider than so many pixels, as far as its words allow."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and extent(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def extent(text: str) -> float:
    """Pixels that a caption's line is wide."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT), False)
    return width * DPI / 72


def save(image: Image.Image, path: Path) -> Path:
    """A PNG of all its colours if that takes no more than `LARGEST` bytes, or of 256, and so narrow that it does."""
    written = encoded(image)
    for width in range(image.width, 0, -100):
        if len(written) <= LARGEST:
            break
        narrow = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
        written = encoded(narrow.quantize(palette=palette(narrow), dither=Image.Dither.FLOYDSTEINBERG))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(written)
    return path


def palette(image: Image.Image) -> Image.Image:
    """256 colours that are near those of an image, and white is one of them."""
    found = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    colours = np.array(found.getpalette()).reshape(-1, 3)
    colours[colours.sum(axis=1).argmax()] = 255
    found.putpalette(colours.flatten().tolist())
    return found


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
