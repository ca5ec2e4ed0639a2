"""Masks: their overlap, their way to the network's maps and to the photo.

N masks   H W pixels of a frame   h w cells of a map   m cells a side of a box
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from maskbench.ops.precision import full_precision
from maskbench.structures import Frame, Instances, Masks, Size

SLICE_PIXELS = 1 << 25
"""Photo-size masks are made in slices of at most this many pixels: 128 MB of probabilities."""
DENSE_PIXELS = 1 << 30
"""What is larger altogether is encoded slice by slice and never held dense."""


def centres_of_mass(masks: Bool[Tensor, "N H W"]) -> Float[Tensor, "N 2"]:
    """Mean row and column index of each mask's pixels (no half pixel added, as SOLO's reference has it)."""
    area = masks.sum(dim=(1, 2)).clamp(min=1)
    rows = torch.arange(masks.shape[1], device=masks.device)
    columns = torch.arange(masks.shape[2], device=masks.device)
    row = (masks.sum(dim=2) * rows).sum(dim=1) / area
    column = (masks.sum(dim=1) * columns).sum(dim=1) / area
    return torch.stack([row, column], dim=1)


def pairwise_iou(a: Bool[Tensor, "N H W"], b: Bool[Tensor, "M H W"]) -> Float[Tensor, "N M"]:
    """Intersection over union of every pair; 0 where both are empty."""
    first, second = a.flatten(1).float(), b.flatten(1).float()
    with full_precision(a.device):
        shared = first @ second.T
    union = first.sum(dim=1)[:, None] + second.sum(dim=1)[None, :] - shared
    return shared / union.clamp(min=1)


def shrink(masks: Bool[Tensor, "N H W"], stride: int) -> Bool[Tensor, "N h w"]:
    """Masks at 1/`stride`: a cell is set where at least two of the four pixels around its centre are.

    It is what OpenCV's bilinear resize of a 0/1 byte image gives (half rounds up), and so what the SOLO family is
    trained on. H and W are multiples of the stride.
    """
    if masks.shape[1] % stride or masks.shape[2] % stride:
        raise ValueError(f"masks of {tuple(masks.shape[1:])} pixels don't divide by a stride of {stride}")
    if stride == 1:
        return masks
    low, high = stride // 2 - 1, stride // 2
    corners = [masks[:, y::stride, x::stride].to(torch.uint8) for y in (low, high) for x in (low, high)]
    return torch.stack(corners).sum(dim=0, dtype=torch.uint8) >= 2


def crop_and_resize(
    masks: Bool[Tensor, "N H W"], boxes: Float[Tensor, "P 4"], size: int, rows: Int64[Tensor, " P"] | None = None
) -> Bool[Tensor, "P m m"]:
    """A mask inside each box as `size` × `size` cells, set where at least half is (Mask R-CNN, section 3).

    Args:
        masks: of one image.
        boxes: in the same pixels.
        size: cells a side.
        rows: the mask of each box (None: as many masks as boxes, each its own).
    """
    rows = torch.arange(len(masks), device=boxes.device) if rows is None else rows
    return crop_softly(masks, boxes, size, rows, aligned=True) >= 0.5


def crop_softly(
    masks: Bool[Tensor, "N H W"],
    boxes: Float[Tensor, "P 4"],
    size: int,
    rows: Int64[Tensor, " P"],
    aligned: bool = False,
) -> Float[Tensor, "P m m"]:
    """The share of each cell that is set, by RoIAlign with adaptive sampling; torchvision trains on it unaligned."""
    rois = torch.cat([rows[:, None].to(boxes.dtype), boxes], dim=1)
    stack = masks[:, None].to(boxes.dtype)
    return roi_align(stack, rois, size, spatial_scale=1.0, sampling_ratio=0, aligned=aligned)[:, 0]


def to_photo(maps: Float[Tensor, "N h w"], frame: Frame, stride: float, threshold: float = 0.5) -> Masks:
    """Probabilities on a map of the padded network input → masks of the photo.

    The padding is cut off and the map resampled once, bilinearly, at the centres of the photo's own pixels; then
    probabilities above `threshold` are set.
    """
    (height, width), scale = frame.photo, frame.scale
    maps = maps[:, : math.ceil(frame.resized[0] / stride), : math.ceil(frame.resized[1] / stride)]
    rows = (torch.arange(height, device=maps.device) + 0.5) * (scale[0] / stride)
    columns = (torch.arange(width, device=maps.device) + 0.5) * (scale[1] / stride)
    grid = torch.stack(
        torch.meshgrid(columns * (2 / maps.shape[2]) - 1, rows * (2 / maps.shape[1]) - 1, indexing="xy"), dim=-1
    )

    def sample(part: slice) -> Bool[Tensor, "n H W"]:
        # The masks are the channels of one image, so that the sampling positions are worked out once for all.
        stack = maps[part].float()[None]
        return F.grid_sample(stack, grid[None], padding_mode="border", align_corners=False)[0] > threshold

    return _in_slices(sample, len(maps), frame.photo, maps.device)


def paste(maps: Float[Tensor, "N m m"], boxes: Float[Tensor, "N 4"], size: Size, threshold: float = 0.5) -> Masks:
    """Probabilities inside boxes → masks of a frame of `size` pixels, set where they are at least `threshold`.

    Bilinear at pixel centres and zero outside the box (detectron2's and MMDetection's paste). Bilinear interpolation
    is separable, so that a mask is two small matrix products: weights over rows × map × weights over columns.
    """
    height, width = size

    def sample(part: slice) -> Bool[Tensor, "n H W"]:
        inside = boxes[part]
        rows = _hat(height, inside[:, 1], inside[:, 3], maps.shape[1])
        columns = _hat(width, inside[:, 0], inside[:, 2], maps.shape[2])
        with full_precision(maps.device):
            return rows @ maps[part].float() @ columns.transpose(1, 2) >= threshold

    return _in_slices(sample, len(maps), size, maps.device)


def on_whole_pixels(
    maps: Float[Tensor, "N m m"], boxes: Float[Tensor, "N 4"]
) -> tuple[Float[Tensor, "N n n"], Float[Tensor, "N 4"]]:
    """Maps with a border of zeros, and their boxes grown with them and cut to whole pixels, as torchvision pastes."""
    grown = (maps.shape[1] + 2) / maps.shape[1]
    centre, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * grown
    low, high = (centre - half).trunc(), (centre + half).trunc()
    return F.pad(maps, (1, 1, 1, 1)), torch.cat([low, torch.maximum(high, low) + 1], dim=1)


def _hat(length: int, low: Float[Tensor, " N"], high: Float[Tensor, " N"], cells: int) -> Float[Tensor, "N L m"]:
    """Weights of linear interpolation: how much of each of `cells` cells between `low` and `high` a pixel takes."""
    pixel = torch.arange(length, device=low.device) + 0.5
    extent = (high - low).clamp(min=1e-6)
    position = (pixel[None] - low[:, None]) / extent[:, None] * cells - 0.5
    return (1 - (position[..., None] - torch.arange(cells, device=low.device)).abs()).clamp(min=0)


def _in_slices(sample: Callable[[slice], Bool[Tensor, "n H W"]], count: int, size: Size, device: torch.device) -> Masks:
    """`count` masks made a bounded number of pixels at a time, dense if all of them fit and encoded if not."""
    pixels = size[0] * size[1]
    step = max(1, SLICE_PIXELS // pixels)
    parts: Iterator[Tensor] = (sample(slice(start, start + step)) for start in range(0, count, step))
    if count == 0:
        return Masks(torch.zeros((0, *size), dtype=torch.bool, device=device))
    if count * pixels <= DENSE_PIXELS:
        return Masks(torch.cat(list(parts)))
    return Masks([mask for part in parts for mask in Masks(part).rle()], size)


def label_map(masks: Bool[Tensor, "N H W"], order: Int64[Tensor, " N"] | None = None) -> Int64[Tensor, "H W"]:
    """One label a pixel: the index of the mask that holds it, −1 where none does.

    Where masks overlap the smallest wins, since the larger one keeps more of itself; `order` (first wins) overrides it.
    """
    if len(masks) == 0:
        return torch.full(masks.shape[1:], -1, dtype=torch.long, device=masks.device)
    order = masks.sum(dim=(1, 2)).argsort(stable=True) if order is None else order
    # argmax takes the first of equal values: the first mask in `order` that is set.
    first = order[masks[order].to(torch.uint8).argmax(dim=0)]
    return torch.where(masks.any(dim=0), first, -1)


def instances_of(masks: Masks, labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"]) -> Instances:
    """Instances whose boxes are their masks' own; empty masks are none."""
    boxes = masks.boxes().to(labels.device)
    return Instances(masks, boxes, labels, scores)[boxes[:, 2] > boxes[:, 0]]
