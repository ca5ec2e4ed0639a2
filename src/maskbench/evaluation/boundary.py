"""The boundary of a mask: its pixels that lie near its outline (Cheng et al., CVPR 2021, section 4)."""

from __future__ import annotations

from math import hypot

import cv2
import numpy as np
import pycocotools.mask as rle_codec

from maskbench.structures import RLE

DILATION = 0.02
"""Width of a boundary as a share of the image's diagonal (section 4.3)."""


def boundary(rle: RLE, dilation: float = DILATION) -> RLE:
    """The edge of a mask as wide as `dilation` times the diagonal of the image, rounded, and a pixel at least."""
    return edge(rle, max(1, round(dilation * hypot(*rle["size"]))))


def edge(rle: RLE, reach: int) -> RLE:
    """The pixels of a mask within reach of a pixel that is not of it, in a straight line or diagonally.

    What lies beyond the image's border is not of the mask.
    """
    left, top, width, height = (int(side) for side in rle_codec.toBbox(rle))
    if min(width, height) <= 2 * reach:
        return rle
    mask = rle_codec.decode(rle)
    box = mask[top : top + height, left : left + width]
    framed = cv2.copyMakeBorder(box, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    box -= cv2.erode(framed, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))[1:-1, 1:-1]
    return rle_codec.encode(mask)
