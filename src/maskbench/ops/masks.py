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
from maskbench.phases import phase
from maskbench.structures import Batch, Frame, Instances, Masks, Size

SLICE_PIXELS = 1 << 25
"""Photo-size masks are made in slices of at most this many pixels: 128 MB of probabilities."""
DENSE_PIXELS = 1 << 30
"""What is larger altogether is encoded slice by slice and never held dense."""
TILE = 32
"""Sides of the tiles in which a CPU compares masks: smaller ones are more to go through, larger ones hold more masks.
"""
WINDOW_SHARE, WINDOW_COST, WINDOW_GROUP = 6, 4096, 32
"""A mask is sampled in a window, beside others of about its size, if six times its pixels and what it costs apart are
less than the photo's."""

UPSAMPLE = torch.ops.aten.upsample_bilinear2d
"""The operator itself: F.interpolate takes no scale beside a size, and a photo may end inside a map's last cell."""


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
    areas = _areas(a)
    other_areas = areas if b is a else _areas(b)
    shared = _shared_on_gpu(a, b) if a.device.type == "cuda" else _shared_in_tiles(a, b)
    return shared / (areas[:, None] + other_areas - shared).clamp(min=1)


def _areas(masks: Bool[Tensor, "N H W"]) -> Float[Tensor, " N"]:
    return masks.view(torch.uint8).sum(dim=(1, 2), dtype=torch.int32).float()


def _shared_on_gpu(a: Bool[Tensor, "N H W"], b: Bool[Tensor, "M H W"]) -> Float[Tensor, "N M"]:
    """Pixels that each pair shares: one product, exact since ones and zeros are and their sums are single precision."""
    if not len(a) or not len(b):
        return torch.zeros((len(a), len(b)), device=a.device)
    first = a.flatten(1).half()
    second = first if b is a else b.flatten(1).half()
    return torch.mm(first, second.T, out_dtype=torch.float32)


def _shared_in_tiles(a: Bool[Tensor, "N H W"], b: Bool[Tensor, "M H W"]) -> Float[Tensor, "N M"]:
    """The same, tile by tile with the masks that reach into a tile, so that a thousand small masks cost little."""
    height, width = a.shape[1:]
    shared = torch.zeros(len(a) * len(b), device=a.device)
    corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
    for (y, x), rows, columns in zip(corners, _reaching(a, TILE), _reaching(b, TILE), strict=True):
        first = a[rows, y : y + TILE, x : x + TILE].flatten(1).float()
        second = b[columns, y : y + TILE, x : x + TILE].flatten(1).float()
        with full_precision(a.device):
            shared.index_add_(0, (rows[:, None] * len(b) + columns).flatten(), (first @ second.T).flatten())
    return shared.view(len(a), len(b))


def _reaching(masks: Bool[Tensor, "N H W"], side: int) -> tuple[Int64[Tensor, " _n"], ...]:
    """For each tile of `side` pixels, row by row: the masks that have a pixel in it."""
    padded = F.pad(masks, (0, -masks.shape[2] % side, 0, -masks.shape[1] % side)).view(torch.uint8)
    count, height, width = padded.shape
    bands = padded.view(count, height // side, side, width).amax(dim=2)
    reached = bands.view(count, height // side, width // side, side).amax(dim=3).flatten(1).T > 0
    return reached.nonzero()[:, 1].split(reached.sum(dim=1).tolist())


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
    """The share of each cell that is set, by RoIAlign with adaptive sampling; torchvision trains on it unaligned.

    Masks are worked on a bounded number of pixels at a time, and those of no row not at all.
    """
    cropped = boxes.new_zeros((len(boxes), size, size))
    for part in rows.unique().split(max(1, SLICE_PIXELS // max(1, masks.shape[1] * masks.shape[2]))):
        own = torch.isin(rows, part).nonzero()[:, 0]
        rois = torch.cat([torch.searchsorted(part, rows[own])[:, None].to(boxes.dtype), boxes[own]], dim=1)
        stack = masks[part, None].to(boxes.dtype)
        pooled = roi_align(stack, rois, size, spatial_scale=1.0, sampling_ratio=0, aligned=aligned)
        cropped[own] = pooled[:, 0]
    return cropped


@phase("masks")
def to_photo(maps: Float[Tensor, "N h w"], frame: Frame, stride: float, threshold: float = 0.5) -> Masks:
    """Probabilities on a map of the padded network input → masks of the photo.

    The padding is cut off and the map resampled once, bilinearly, at the centres of the photo's own pixels; then
    probabilities above `threshold` are set. On a CPU masks that fill a small part of the photo are sampled in a window
    alone.
    """
    (height, width), scale = frame.photo, frame.scale
    maps = maps[:, : math.ceil(frame.resized[0] / stride), : math.ceil(frame.resized[1] / stride)]
    cells = (scale[0] / stride, scale[1] / stride)  # of the map a pixel of the photo

    def enlarge(stack: Float[Tensor, "n h w"]) -> Bool[Tensor, "n H W"]:
        return UPSAMPLE(stack[:, None], frame.photo, False, 1 / cells[0], 1 / cells[1])[:, 0] > threshold

    if maps.device.type != "cpu":  # one pass over all pixels is faster there than a kernel for each window
        return _in_slices(lambda part: enlarge(maps[part].float()), len(maps), frame.photo, maps.device)
    rows = (torch.arange(height, device=maps.device) + 0.5) * cells[0] * (2 / maps.shape[1]) - 1
    columns = (torch.arange(width, device=maps.device) + 0.5) * cells[1] * (2 / maps.shape[2]) - 1

    def sample(part: slice) -> Bool[Tensor, "n H W"]:
        stack = maps[part].float()
        first, extent = _windows(stack > threshold, cells, frame.photo)
        area = extent.prod(dim=1)
        large = (WINDOW_SHARE * (area + WINDOW_COST) >= height * width).nonzero()[:, 0]
        whole = enlarge(stack[large])
        if len(large) == len(stack):
            return whole
        drawn = whole.new_zeros((len(stack), height, width)).index_copy_(0, large, whole)
        for group in area.argsort()[: len(stack) - len(large)].split(WINDOW_GROUP):
            tall, wide = extent[group].amax(dim=0).tolist()
            y = first[group, :1].clamp(max=height - tall) + torch.arange(tall, device=maps.device)
            x = first[group, 1:].clamp(max=width - wide) + torch.arange(wide, device=maps.device)
            inside = _sampled(stack[group], rows[y], columns[x]) > threshold
            drawn[group[:, None, None], y[:, :, None], x[:, None]] = inside
        return drawn

    return _in_slices(sample, len(maps), frame.photo, maps.device)


def _windows(
    masks: Bool[Tensor, "N h w"], cells: tuple[float, float], photo: Size
) -> tuple[Int64[Tensor, "N 2"], Int64[Tensor, "N 2"]]:
    """First pixel (row, column) and size of the windows outside of which no pixel has a set cell beside it."""
    boxes = Masks(masks).boxes()[:, [1, 0, 3, 2]]
    scale, limit = boxes.new_tensor(cells), torch.tensor(photo, device=masks.device)
    first = ((boxes[:, :2] - 0.5) / scale - 1).long().clamp(min=0)
    last = ((boxes[:, 2:] + 0.5) / scale + 1).long().minimum(limit)
    return first.minimum(limit), (last - first).clamp(min=0)


def _sampled(
    maps: Float[Tensor, "N h w"], rows: Float[Tensor, "N H"], columns: Float[Tensor, "N W"]
) -> Float[Tensor, "N H W"]:
    """Maps at the crossings of rows and columns, which are given from −1 to 1."""
    size = (len(rows), rows.shape[1], columns.shape[1])
    grid = torch.stack([columns[:, None].expand(size), rows[:, :, None].expand(size)], dim=-1)
    return F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def resampled(batch: Batch, stride: int) -> list[Instances]:
    """The truth on maps at 1/`stride`, brought to the photo as a prediction is: the ceiling of masks drawn there."""
    drawn = []
    for target, frame in zip(batch.targets, batch.frames, strict=True):
        maps = shrink(target.masks.dense().to(target.boxes.device), stride).float()
        drawn.append(instances_of(to_photo(maps, frame, stride), target.labels, target.scores))
    return drawn


@phase("masks")
def paste(maps: Float[Tensor, "N m m"], boxes: Float[Tensor, "N 4"], size: Size, threshold: float = 0.5) -> Masks:
    """Probabilities inside boxes → masks of a frame of `size` pixels, set where they are at least `threshold`.

    Bilinear at pixel centres and zero outside the box (detectron2's and MMDetection's paste). Bilinear interpolation
    is separable, so that a mask is two small matrix products: weights over rows × map × weights over columns. On a CPU
    they are made for the pixels of each box alone.
    """
    height, width = size

    def sample(part: slice) -> Bool[Tensor, "n H W"]:
        inside, stack = boxes[part], maps[part].float()
        rows = _hat(height, inside[:, 1], inside[:, 3], maps.shape[1])
        columns = _hat(width, inside[:, 0], inside[:, 2], maps.shape[2])
        if maps.device.type == "cpu":
            return _pasted_apart(rows, stack, columns, threshold)
        with full_precision(maps.device):
            return rows @ stack @ columns.transpose(1, 2) >= threshold

    return _in_slices(sample, len(maps), size, maps.device)


def _pasted_apart(
    rows: Float[Tensor, "N H m"], maps: Float[Tensor, "N m n"], columns: Float[Tensor, "N W n"], threshold: float
) -> Bool[Tensor, "N H W"]:
    """The products of each mask over the rows and columns that have a weight; beyond them a mask is zero."""
    drawn = torch.full((len(maps), rows.shape[1], columns.shape[1]), threshold <= 0, dtype=torch.bool)
    for mask, row, stack, column, y, x in zip(drawn, rows, maps, columns, _reach(rows), _reach(columns), strict=True):
        torch.ge(row[y] @ stack @ column[x].T, threshold, out=mask[y, x])
    return drawn


def _reach(weights: Float[Tensor, "N L m"]) -> list[slice]:
    """From the first to the last pixel that takes something of a cell."""
    taking = weights.amax(dim=2) > 0
    first, count = taking.byte().argmax(dim=1), taking.sum(dim=1)
    return [slice(start, end) for start, end in torch.stack([first, first + count], dim=1).tolist()]


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
    if count <= step:
        return Masks(next(parts))
    if count * pixels <= DENSE_PIXELS:
        drawn = torch.empty((count, *size), dtype=torch.bool, device=device)
        for start, part in zip(range(0, count, step), parts, strict=True):
            drawn[start : start + step] = part
        return Masks(drawn)
    return Masks([mask for part in parts for mask in Masks(part).rle()], size)


def label_map(masks: Bool[Tensor, "N H W"], order: Int64[Tensor, " N"] | None = None) -> Int64[Tensor, "H W"]:
    """One label a pixel: the index of the mask that holds it, −1 where none does.

    Where masks overlap the smallest wins, since the larger one keeps more of itself; `order` (first wins) overrides it.
    """
    if len(masks) == 0:
        return torch.full(masks.shape[1:], -1, dtype=torch.long, device=masks.device)
    order = smallest_first(masks) if order is None else order
    # argmax takes the first of equal values: the first mask in `order` that is set.
    first = order[masks[order].to(torch.uint8).argmax(dim=0)]
    return torch.where(masks.any(dim=0), first, -1)


def smallest_first(masks: Bool[Tensor, "N H W"]) -> Int64[Tensor, " N"]:
    """Rows by the pixels of their masks; equal ones keep their order."""
    return masks.sum(dim=(1, 2)).argsort(stable=True)


def maskness(maps: Float[Tensor, "N h w"]) -> Float[Tensor, " N"]:
    """The mean probability inside each mask, 0 for an empty one: how sure it is (SOLO's released code)."""
    return F.threshold(maps, 0.5, 0).sum(dim=(1, 2)) / (maps > 0.5).sum(dim=(1, 2)).clamp(min=1)


def instances_of(masks: Masks, labels: Int64[Tensor, " N"], scores: Float[Tensor, " N"]) -> Instances:
    """Instances whose boxes are their masks' own; empty masks are none."""
    boxes = masks.boxes().to(labels.device)
    found, real = Instances(masks, boxes, labels, scores), boxes[:, 2] > boxes[:, 0]
    return found if bool(real.all()) else found[real]
