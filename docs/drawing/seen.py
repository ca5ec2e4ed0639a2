"""A photo that a method has seen, and what several methods say of one.

h w cells of a map   E dimensions
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from drawing.layers import as_colours, scattered
from drawing.panels import NO_BREAK, Ground, Panel
from maskbench.structures import Frame, Instances


@dataclass(frozen=True)
class Seen:
    """A photo, and what was found on it.

    Args:
        ground: the photo.
        found: the instances, scores descending.
        score: the lowest of them that counts.
    """

    ground: Ground
    found: Instances
    score: float

    @property
    def frame(self) -> Frame:
        return self.ground.frame


def embedded(maps: Tensor, inside: Tensor, seen: Seen, what: str) -> Panel:
    """A map [E h w]: its three main axes as red, green and blue, inside a part of it."""
    painted = scattered(as_colours(maps[:, inside].T), inside)
    caption = f"{what} of {len(maps)} dimensions, the main three as colours"
    return Panel(caption, [seen.ground.dimmed, seen.ground.map(painted)])


def by(height: int, width: int) -> str:
    """`28 × 28`, on one line."""
    return f"{height}{NO_BREAK}×{NO_BREAK}{width}"


def names(count: int) -> str:
    """Of which instances so many tiles are."""
    return "none" if count == 0 else "of the best" if count == 1 else f"of the best {count}"
