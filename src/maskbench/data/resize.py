"""How large a photo becomes as network input."""

from __future__ import annotations


def fitted(photo: tuple[int, int], short: int | None, long: int | None, factor: float = 1.0) -> tuple[int, int]:
    """Size of a photo after the keep-ratio resize: its short side is `short`, unless its long side would exceed `long`.

    Args:
        photo: height and width.
        short: short side in pixels; None leaves the photo as large as it is (but for `long`).
        long: cap of the long side in pixels; None sets none.
        factor: scales the result.

    Source: detectron2's ResizeShortestEdge, whose rounding it has.
    """
    scale = 1.0 if short is None else short / min(photo)
    if long is not None:
        scale = min(scale, long / max(photo))
    height, width = (max(1, int(side * scale * factor + 0.5)) for side in photo)
    return height, width
