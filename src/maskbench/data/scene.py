"""One drawn image: discs, rectangles, triangles, stars and rings over a textured background, with their visible parts.

Every number is an integer from the first random bit to the last pixel, so that one seed gives the same image on every
machine: the bits are PCG64's raw output (whose stream numpy guarantees, unlike that of `Generator.integers`), and
lengths are sixteenths of a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.random import PCG64, SeedSequence

SUB = 16
"""Units of length a pixel."""
TURN = 256
"""Directions in a full turn."""
UNIT = 1024
"""Length of a direction vector."""
HUES = 1536
"""Steps around the colour wheel: six edges of 256."""
TRIES = 12
"""Places tried for an object before it is left out."""
LEAST = 16
"""Pixels of an object that must be visible."""
CROWD = 14
"""Small objects in a crowd region."""

# No entry lies within 1e-6 of a half, so every libm rounds them alike.
_COSINES = [round(UNIT * math.cos(2 * math.pi * step / TURN)) for step in range(TURN)]

Grid = Int64[np.ndarray, "h w"]
Silhouette = Bool[np.ndarray, "h w"]


class Draws:
    """Random integers from a stream that no version of numpy may change (NEP 19)."""

    def __init__(self, *seed: int) -> None:
        self._bits = PCG64(SeedSequence(seed))

    def below(self, count: int) -> int:
        """One of 0 … count−1."""
        return (int(self._bits.random_raw()) >> 32) * count >> 32

    def between(self, low: int, high: int) -> int:
        """One of low … high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True in this share of the throws (to a thousandth)."""
        return self.below(1000) < round(1000 * share)

    def bytes(self, *shape: int) -> UInt8[np.ndarray, "..."]:
        """Independent values 0 … 255."""
        count = math.prod(shape)
        words = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(shape)


@dataclass(frozen=True)
class Look:
    """What scenes look like; lengths as shares of the image's side, brightness in grey levels.

    Args:
        size: side of the square image in pixels.
        classes: names out of `SILHOUETTES`.
        hue: `class` gives each class its own hue, `any` draws one for every object.
        objects: fewest and most objects of an image that is not empty.
        radius: smallest and largest radius of the circle around an object.
        overlap: share of objects that are set against an earlier one, to touch or occlude it; half take its class.
        empty: share of images without objects.
        texture: amplitude of the slow variation of background and objects.
        noise: amplitude of the noise on every pixel.
        visible: an object is drawn only if this share of every earlier one stays visible, and at least LEAST pixels.
    """

    size: int = 128
    classes: Sequence[str] = ("disc", "rectangle", "triangle")
    hue: str = "class"
    objects: Sequence[int] = (2, 5)
    radius: Sequence[float] = (0.10, 0.22)
    overlap: float = 0.4
    empty: float = 0.03
    texture: int = 40
    noise: int = 24
    visible: float = 0.25


@dataclass(frozen=True)
class Shape:
    """One object: class, place and size in sixteenths of a pixel, direction, and three throws that bend its form."""

    label: int
    x: int
    y: int
    radius: int
    direction: int
    form: tuple[int, int, int]


@dataclass
class Scene:
    """A finished image and what can be seen of each object in it."""

    image: UInt8[np.ndarray, "H W 3"]
    labels: list[int] = field(default_factory=list)
    masks: list[Bool[np.ndarray, "H W"]] = field(default_factory=list)
    wholes: list[int] = field(default_factory=list)
    """Pixels of each object when it was drawn, before others covered it."""
    crowds: list[bool] = field(default_factory=list)


def paint(look: Look, draws: Draws, *, crowd: bool = False) -> Scene:
    """Draw one image, later objects over earlier ones; with `crowd`, on top of a region of many small objects."""
    scene = Scene(_background(look, draws))
    light = _waves(look.size, draws, cells=4)
    shapes: list[Shape] = []
    if crowd:
        _add_crowd(scene, look, draws, light)
    if crowd or not draws.chance(look.empty):
        for _ in range(draws.between(*look.objects)):
            _add_object(scene, shapes, look, draws, light)
    _add_noise(scene.image, look.noise, draws)
    return scene


# Silhouettes: which pixels of a grid, given as offsets from the centre, belong to a shape -----------------------------


def _disc(shape: Shape, x: Grid, y: Grid) -> Silhouette:
    return x * x + y * y <= shape.radius**2


def _ring(shape: Shape, x: Grid, y: Grid) -> Silhouette:
    distance = x * x + y * y
    hole = shape.radius * (110 + shape.form[0] // 8) // 256
    return (distance <= shape.radius**2) & (distance > hole**2)


def _rectangle(shape: Shape, x: Grid, y: Grid) -> Silhouette:
    cosine, sine = _vector(shape.direction)
    long = shape.radius * 215 // 256
    short = long * (128 + shape.form[0] // 2) // 256
    along, across = x * cosine + y * sine, y * cosine - x * sine
    return (abs(along) <= long * UNIT) & (abs(across) <= short * UNIT)


def _triangle(shape: Shape, x: Grid, y: Grid) -> Silhouette:
    bend, twist = shape.form[0] // 16 - 8, shape.form[1] // 16 - 8
    corners = [shape.direction, shape.direction + 85 + bend, shape.direction + 171 + twist]
    return _inside(shape.radius, corners, 1, x, y) == 3


def _star(shape: Shape, x: Grid, y: Grid) -> Silhouette:
    # A point of the pentagram lies on the inner side of at least four of its five lines.
    return _inside(shape.radius, [shape.direction + TURN * point // 5 for point in range(5)], 2, x, y) >= 4


def _inside(radius: int, directions: Sequence[int], step: int, x: Grid, y: Grid) -> Grid:
    """On the inner side of how many lines from each corner to the one `step` further every pixel lies."""
    corners = [(radius * cosine // UNIT, radius * sine // UNIT) for cosine, sine in map(_vector, directions)]
    count = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.int64)
    for index, (px, py) in enumerate(corners):
        qx, qy = corners[(index + step) % len(corners)]
        count += (qx - px) * (y - py) - (qy - py) * (x - px) >= 0
    return count


def _vector(direction: int) -> tuple[int, int]:
    """Cosine and sine of a direction, times UNIT."""
    return _COSINES[direction % TURN], _COSINES[(direction - TURN // 4) % TURN]


SILHOUETTES = {"disc": _disc, "rectangle": _rectangle, "triangle": _triangle, "star": _star, "ring": _ring}


# Objects --------------------------------------------------------------------------------------------------------------


def _add_object(scene: Scene, shapes: list[Shape], look: Look, draws: Draws, light: Grid) -> None:
    """Draw one more object where it hides no earlier one too much; leave it out if there is no such place."""
    for _ in range(TRIES):
        shape = _throw(shapes, look, draws)
        mask = _mask(shape, look)
        if _leaves_visible(scene, mask, look.visible):
            break
    else:
        return
    for earlier in scene.masks:
        earlier &= ~mask
    _fill(scene.image, mask, shape, _colour(shape.label, look, draws), light)
    shapes.append(shape)
    _record(scene, mask, shape.label, crowd=False)


def _throw(shapes: list[Shape], look: Look, draws: Draws) -> Shape:
    """A shape anywhere, or one that touches or covers the rim of an earlier one."""
    low, high = (round(share * look.size * SUB) for share in look.radius)
    side = look.size * SUB
    label, radius = draws.below(len(look.classes)), draws.between(low, high)
    x, y = draws.between(radius // 2, side - radius // 2), draws.between(radius // 2, side - radius // 2)
    if shapes and draws.chance(look.overlap):
        other = shapes[draws.below(len(shapes))]
        reach = (other.radius + radius) * draws.between(60, 100) // 100
        cosine, sine = _vector(draws.below(TURN))
        x = min(max(other.x + reach * cosine // UNIT, 0), side)
        y = min(max(other.y + reach * sine // UNIT, 0), side)
        label = other.label if draws.chance(0.5) else label
    form = (draws.below(256), draws.below(256), draws.below(256))
    return Shape(label, x, y, radius, draws.below(TURN), form)


def _mask(shape: Shape, look: Look) -> Bool[np.ndarray, "H W"]:
    """The pixels whose centre lies in the shape."""
    mask = np.zeros((look.size, look.size), bool)
    left, right = _span(shape.x, shape.radius, look.size)
    top, bottom = _span(shape.y, shape.radius, look.size)
    centres = np.arange(look.size, dtype=np.int64) * SUB + SUB // 2
    x, y = np.meshgrid(centres[left:right] - shape.x, centres[top:bottom] - shape.y)
    mask[top:bottom, left:right] = SILHOUETTES[look.classes[shape.label]](shape, x, y)
    return mask


def _span(centre: int, radius: int, size: int) -> tuple[int, int]:
    return max(0, (centre - radius) // SUB), min(size, (centre + radius) // SUB + 2)


def _leaves_visible(scene: Scene, mask: Silhouette, share: float) -> bool:
    """Whether this mask is large enough itself and leaves enough of every object under it."""
    earlier = zip(scene.masks, scene.wholes, strict=True)
    left = (np.count_nonzero(seen & ~mask) >= max(LEAST, share * whole) for seen, whole in earlier)
    return int(np.count_nonzero(mask)) >= LEAST and all(left)


def _add_crowd(scene: Scene, look: Look, draws: Draws, light: Grid) -> None:
    """Many small objects of one class side by side, recorded as one region."""
    side, label = look.size * SUB, draws.below(len(look.classes))
    x, y = draws.between(side // 3, 2 * side // 3), draws.between(side // 3, 2 * side // 3)
    union = np.zeros((look.size, look.size), bool)
    for _ in range(CROWD):
        place = (x + draws.between(-side // 6, side // 6), y + draws.between(-side // 6, side // 6))
        form = (draws.below(256), draws.below(256), draws.below(256))
        shape = Shape(label, *place, side * draws.between(30, 45) // 1000, draws.below(TURN), form)
        mask = _mask(shape, look)
        _fill(scene.image, mask, shape, _colour(label, look, draws), light)
        union |= mask
    _record(scene, union, label, crowd=True)


def _record(scene: Scene, mask: Silhouette, label: int, *, crowd: bool) -> None:
    scene.masks.append(mask)
    scene.wholes.append(int(np.count_nonzero(mask)))
    scene.labels.append(label)
    scene.crowds.append(crowd)


# Colour, light and noise ----------------------------------------------------------------------------------------------


def _colour(label: int, look: Look, draws: Draws) -> tuple[int, int, int]:
    """A shade of the class's hue (or of any)."""
    hue = draws.below(HUES) if look.hue == "any" else HUES * label // len(look.classes) + draws.between(-40, 40)
    saturation, value = draws.between(130, 255), draws.between(110, 235)
    edges = (abs(hue % HUES - 768) - 256, 512 - abs(hue % HUES - 512), 512 - abs(hue % HUES - 1024))
    pure = [min(max(edge, 0), 255) for edge in edges]
    red, green, blue = (value * (255 * 255 - saturation * (255 - channel)) // (255 * 255) for channel in pure)
    return red, green, blue


def _fill(
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    shape: Shape,
    colour: tuple[int, int, int],
    light: Grid,
) -> None:
    """Paint a shape, lit from above left, so that its rim stands out from a neighbour of the same colour."""
    rows, columns = np.nonzero(mask)
    slope = (shape.x + shape.y - SUB * (rows + columns + 1)) * 40 // shape.radius
    shade = (slope + light[rows, columns] // 4)[:, None]
    image[rows, columns] = np.clip(np.array(colour) * (256 + shade) // 256, 0, 255)


def _background(look: Look, draws: Draws) -> UInt8[np.ndarray, "H W 3"]:
    """A dull colour with slow and quick variations."""
    grey = draws.between(60, 170)
    base = np.array([grey + draws.between(-25, 25) for _ in range(3)])
    waves = _waves(look.size, draws, cells=5) + _waves(look.size, draws, cells=16) // 2
    return np.clip(base + (waves * look.texture // 128)[:, :, None], 0, 255).astype(np.uint8)


def _waves(size: int, draws: Draws, *, cells: int) -> Grid:
    """Random values −128 … 127 at the corners of `cells` × `cells` fields, and straight lines in between."""
    knots = draws.bytes(cells + 1, cells + 1).astype(np.int64) - 128
    position = (2 * np.arange(size, dtype=np.int64) + 1) * cells * 128 // size  # in 256ths of a field
    field_index, rest = position >> 8, position & 255
    ramp = np.zeros((size, cells + 1), np.int64)
    ramp[np.arange(size), field_index] = 256 - rest
    ramp[np.arange(size), field_index + 1] = rest
    return (ramp @ knots @ ramp.T) >> 16


def _add_noise(image: UInt8[np.ndarray, "H W 3"], amplitude: int, draws: Draws) -> None:
    """Triangular noise of this amplitude on every value."""
    throws = draws.bytes(2, *image.shape).astype(np.int16)
    np.clip(image + ((throws[0] - throws[1]) * amplitude >> 8), 0, 255, out=throws[0])
    image[:] = throws[0]
