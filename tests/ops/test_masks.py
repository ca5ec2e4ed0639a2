from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskbench.ops import masks as mask_ops
from maskbench.structures import Frame, Masks


def rectangle(size: tuple[int, int], top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def blobs(count: int, size: tuple[int, int]) -> Tensor:
    """Masks with ragged edges."""
    coarse = torch.rand(count, 1, size[0] // 8, size[1] // 8)
    return F.interpolate(coarse, size=size, mode="bilinear")[:, 0] + 0.2 * torch.rand(count, *size) > 0.6


class TestGeometry:
    def test_centre_of_mass_is_the_mean_index(self) -> None:
        ell = rectangle((10, 12), 2, 3, 5, 4) | rectangle((10, 12), 4, 3, 5, 6)
        # Rows 2, 3, 4, 4, 4 and columns 3, 3, 3, 4, 5.
        centres = mask_ops.centres_of_mass(torch.stack([ell, torch.zeros_like(ell)]))
        torch.testing.assert_close(centres, torch.tensor([[3.4, 3.6], [0, 0]]))

    def test_iou_by_hand(self) -> None:
        a = torch.stack([rectangle((8, 8), 0, 0, 4, 4), torch.zeros(8, 8, dtype=torch.bool)])
        b = torch.stack([rectangle((8, 8), 0, 0, 4, 4), rectangle((8, 8), 2, 2, 6, 6), rectangle((8, 8), 5, 5, 8, 8)])
        expected = torch.tensor([[1, 4 / 28, 0], [0, 0, 0]])
        torch.testing.assert_close(mask_ops.pairwise_iou(a, b), expected)
        assert mask_ops.pairwise_iou(a[:0], b).shape == (0, 3)

    @pytest.mark.parametrize("size", [(32, 64), (70, 45), (8, 8)])
    def test_iou_tile_by_tile(self, size: tuple[int, int]) -> None:
        """Frames that are tiles and parts of tiles, masks that reach into some of them, and one that has no pixel."""
        a, b = (torch.rand(count, *size) < 0.5 for count in (6, 9))
        a[:, :, size[1] // 3 :] &= torch.rand(6, 1, 1) < 0.5
        b[0] = False
        rows, columns = a.flatten(1).double(), b.flatten(1).double()
        shared = rows @ columns.T
        union = rows.sum(dim=1)[:, None] + columns.sum(dim=1) - shared
        torch.testing.assert_close(mask_ops.pairwise_iou(a, b), (shared / union).nan_to_num().float())

    def test_iou_of_a_mask_moved_by_one_pixel(self) -> None:
        mask = rectangle((20, 20), 5, 5, 11, 15)  # 6 high, 10 wide
        right, down = mask.roll(1, dims=1), mask.roll(1, dims=0)
        found = mask_ops.pairwise_iou(mask[None], torch.stack([right, down]))
        torch.testing.assert_close(found, torch.tensor([[54 / 66, 50 / 70]]))


class TestShrink:
    @pytest.mark.parametrize("stride", [2, 4, 8, 16])
    def test_it_is_opencvs_bilinear_resize(self, stride: int) -> None:
        masks = blobs(3, (64, 96))
        for mask, small in zip(masks, mask_ops.shrink(masks, stride), strict=True):
            pixels = mask.numpy().astype(np.uint8)
            resized = cv2.resize(pixels, (96 // stride, 64 // stride), interpolation=cv2.INTER_LINEAR)
            assert np.array_equal(small.numpy(), resized >= 1)

    def test_two_of_four_pixels_are_enough(self) -> None:
        masks = torch.zeros(3, 4, 4, dtype=torch.bool)
        masks[0, 1, 1] = True
        masks[1, 1, 1:3] = True
        masks[2] = ~rectangle((4, 4), 1, 1, 3, 3)  # all but the four in the middle
        assert mask_ops.shrink(masks, 4).flatten().tolist() == [False, True, False]

    def test_stride_one_changes_nothing(self) -> None:
        masks = blobs(2, (16, 16))
        assert torch.equal(mask_ops.shrink(masks, 1), masks)
        assert mask_ops.shrink(masks[:0], 4).shape == (0, 4, 4)

    def test_a_size_that_does_not_divide_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"\(16, 24\) pixels don't divide by a stride of 16"):
            mask_ops.shrink(torch.zeros(1, 16, 24, dtype=torch.bool), 16)


class TestCropAndResize:
    def test_a_half_is_a_half_in_its_box(self) -> None:
        masks = torch.stack([rectangle((40, 40), 0, 0, 40, 20), rectangle((40, 40), 10, 0, 20, 40)])
        boxes = torch.tensor([[10.0, 10, 30, 30], [0, 0, 40, 20]])
        left, lower = mask_ops.crop_and_resize(masks, boxes, 4)
        assert torch.equal(left, rectangle((4, 4), 0, 0, 4, 2))
        assert torch.equal(lower, rectangle((4, 4), 2, 0, 4, 4))

    def test_at_its_own_size_a_crop_is_a_crop(self) -> None:
        masks = blobs(1, (32, 32))
        crop = mask_ops.crop_and_resize(masks, torch.tensor([[5.0, 7, 17, 19]]), 12)
        assert torch.equal(crop[0], masks[0, 7:19, 5:17])

    def test_nothing(self) -> None:
        assert mask_ops.crop_and_resize(blobs(1, (8, 8))[:0], torch.zeros(0, 4), 28).shape == (0, 28, 28)


class TestToPhoto:
    def test_it_is_bilinear_interpolation_where_the_photo_is_the_network_input(self) -> None:
        maps = torch.rand(3, 12, 16)
        photo = mask_ops.to_photo(maps, Frame(1, photo=(48, 64), resized=(48, 64)), stride=4)
        assert torch.equal(photo.dense(), F.interpolate(maps[:, None], scale_factor=4, mode="bilinear")[:, 0] > 0.5)

    def test_it_samples_at_the_centres_of_the_photos_pixels(self) -> None:
        """A vertical edge at network column 24 lies at photo column 24 / 1.6 = 15."""
        frame = Frame(1, photo=(20, 30), resized=(32, 48))
        maps = torch.zeros(1, 16, 16)  # 64 × 64 with the padding
        maps[:, :, :6] = 1
        assert torch.equal(mask_ops.to_photo(maps, frame, stride=4).dense()[0], rectangle((20, 30), 0, 0, 20, 15))

    def test_the_padding_is_cut_off(self) -> None:
        frame = Frame(1, photo=(24, 40), resized=(24, 40))
        maps = torch.ones(1, 16, 16)
        maps[:, 6:], maps[:, :, 10:] = 0, 0
        inner = mask_ops.to_photo(maps, frame, stride=4).dense()
        assert inner.shape == (1, 24, 40)
        assert inner[:, :22, :38].all()

    @pytest.mark.parametrize("photo", [(300, 420), (96, 500), (640, 333)])
    def test_windows_change_nothing(self, photo: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        """Masks of all sizes anywhere, also in the corners, and one without a set cell."""
        maps = torch.rand(60, 30, 42)
        for row, values in enumerate(maps):
            side = (3, 6, 20)[row % 3]
            top, left = int(torch.randint(-3, 30, ())), int(torch.randint(-3, 42, ()))
            outside = torch.ones(30, 42, dtype=torch.bool)
            outside[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = False
            values[outside] *= 0.5
        maps[0] *= 0.5
        frame = Frame(1, photo=photo, resized=(117, 165))
        in_windows = mask_ops.to_photo(maps, frame, stride=4).dense()
        monkeypatch.setattr(mask_ops, "WINDOW_COST", 1 << 30)
        whole = mask_ops.to_photo(maps, frame, stride=4).dense()
        assert torch.equal(in_windows, whole)
        assert whole[1:].any()
        assert not whole[0].any()

    def test_only_windows_are_sampled_of_small_masks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels: list[int] = []
        sample, upsample = F.grid_sample, mask_ops.UPSAMPLE

        def windows(maps: Tensor, grid: Tensor, **options: Any) -> Tensor:
            pixels.append(len(maps) * maps.shape[1] * grid[0, ..., 0].numel())
            return sample(maps, grid, **options)

        def whole(maps: Tensor, size: tuple[int, int], *arguments: Any) -> Tensor:
            pixels.append(len(maps) * size[0] * size[1])
            return upsample(maps, size, *arguments)

        monkeypatch.setattr(F, "grid_sample", windows)
        monkeypatch.setattr(mask_ops, "UPSAMPLE", whole)
        maps = torch.zeros(100, 100, 100)
        maps[:, 40:44, 40:44] = 1
        mask_ops.to_photo(maps, Frame(1, photo=(400, 400), resized=(400, 400)), stride=4)
        assert sum(pixels) <= 100 * 24**2  # 4 cells are 16 pixels, and a cell around them
        with_one = maps.clone()
        with_one[7] = 1
        mask_ops.to_photo(with_one, Frame(1, photo=(400, 400), resized=(400, 400)), stride=4)
        assert sum(pixels) <= 2 * 100 * 24**2 + 400**2

    @pytest.mark.parametrize("limit", ["one slice", "several slices", "encoded"])
    def test_memory_is_bounded_and_the_masks_are_the_same(self, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
        maps, frame = torch.rand(5, 8, 8), Frame(1, photo=(32, 32), resized=(32, 32))
        expected = mask_ops.to_photo(maps, frame, stride=4).dense()
        if limit != "one slice":
            monkeypatch.setattr(mask_ops, "SLICE_PIXELS", 2 * 32 * 32)
        if limit == "encoded":
            monkeypatch.setattr(mask_ops, "DENSE_PIXELS", 4 * 32 * 32)
        found = mask_ops.to_photo(maps, frame, stride=4)
        assert found.is_dense == (limit != "encoded")
        assert torch.equal(found.dense(), expected)

    def test_no_slice_is_larger_than_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        sample = mask_ops.UPSAMPLE

        def watched(maps: Tensor, *arguments: Any) -> Tensor:
            made.append(len(maps))
            return sample(maps, *arguments)

        monkeypatch.setattr(mask_ops, "SLICE_PIXELS", 2 * 32 * 32 + 5)
        monkeypatch.setattr(mask_ops, "UPSAMPLE", watched)
        mask_ops.to_photo(torch.rand(5, 8, 8), Frame(1, photo=(32, 32), resized=(32, 32)), stride=4)
        assert made == [2, 2, 1]

    def test_nothing(self) -> None:
        found = mask_ops.to_photo(torch.zeros(0, 8, 8), Frame(1, photo=(30, 31), resized=(32, 32)), stride=4)
        assert (len(found), found.size) == (0, (30, 31))


class TestPaste:
    def test_a_full_map_fills_exactly_its_box(self) -> None:
        boxes = torch.tensor([[3.0, 5, 11, 9], [0, 0, 20, 16], [19, 15, 20, 16]])
        pasted = mask_ops.paste(torch.ones(3, 28, 28), boxes, (16, 20)).dense()
        expected = [rectangle((16, 20), y1, x1, y2, x2) for x1, y1, x2, y2 in boxes.int().tolist()]
        assert torch.equal(pasted, torch.stack(expected))

    def test_it_is_grid_sample_at_pixel_centres(self) -> None:
        size, maps = (48, 56), torch.rand(6, 28, 28)
        corner = torch.rand(6, 2) * 40 - 8  # some reach over the edge
        boxes = torch.cat([corner, corner + 2 + torch.rand(6, 2) * 30], dim=1)
        x = (torch.arange(size[1]) + 0.5 - boxes[:, 0:1]) / (boxes[:, 2] - boxes[:, 0])[:, None] * 2 - 1
        y = (torch.arange(size[0]) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3] - boxes[:, 1])[:, None] * 2 - 1
        grid = torch.stack([x[:, None].expand(-1, *size), y[:, :, None].expand(-1, *size)], dim=-1)
        expected = F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
        pasted = mask_ops.paste(maps, boxes, size).dense()
        sure = (expected - 0.5).abs() > 1e-5
        assert sure.float().mean() > 0.99
        assert torch.equal(pasted[sure], (expected >= 0.5)[sure])

    def test_a_box_without_an_area_gives_an_empty_mask(self) -> None:
        pasted = mask_ops.paste(torch.ones(1, 28, 28), torch.tensor([[4.0, 4, 4, 9]]), (16, 16))
        assert pasted.areas().tolist() == [0]

    def test_nothing(self) -> None:
        found = mask_ops.paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (30, 31))
        assert (len(found), found.size) == (0, (30, 31))


def test_a_probability_on_the_threshold_is_pasted_but_not_resampled() -> None:
    """As in the references: the two-stage methods ask for at least a half, the SOLO family for more."""
    half = torch.full((1, 4, 4), 0.5)
    pasted = mask_ops.paste(half, torch.tensor([[2.0, 2, 10, 10]]), (16, 16))
    assert pasted.areas().item() == 36  # all but the rim, where the outside's zero mixes in
    assert mask_ops.to_photo(half, Frame(1, photo=(16, 16), resized=(16, 16)), stride=4).areas().item() == 0


class TestLabelMap:
    def test_the_smallest_mask_wins(self) -> None:
        masks = torch.stack(
            [rectangle((4, 6), 0, 0, 3, 5), rectangle((4, 6), 1, 1, 3, 3), rectangle((4, 6), 2, 2, 4, 5)]
        )
        assert mask_ops.label_map(masks).tolist() == [
            [0, 0, 0, 0, 0, -1],
            [0, 1, 1, 0, 0, -1],
            [0, 1, 1, 2, 2, -1],
            [-1, -1, 2, 2, 2, -1],
        ]

    def test_of_equals_the_first_wins(self) -> None:
        same = rectangle((2, 2), 0, 0, 1, 2)
        assert mask_ops.label_map(torch.stack([same, same])).tolist() == [[0, 0], [-1, -1]]

    def test_an_order_overrides_the_size(self) -> None:
        masks = torch.stack([rectangle((1, 4), 0, 0, 1, 3), rectangle((1, 4), 0, 1, 1, 3)])
        assert mask_ops.label_map(masks, torch.tensor([0, 1])).tolist() == [[0, 0, 0, -1]]

    def test_nothing(self) -> None:
        assert mask_ops.label_map(torch.zeros(0, 2, 3, dtype=torch.bool)).tolist() == [[-1] * 3] * 2


def test_instances_of_leaves_out_empty_masks() -> None:
    masks = torch.stack([rectangle((8, 8), 1, 2, 4, 7), torch.zeros(8, 8, dtype=torch.bool)])
    for form in (Masks(masks), Masks(Masks(masks).rle())):
        found = mask_ops.instances_of(form, torch.tensor([3, 4]), torch.tensor([0.9, 0.8]))
        assert found.labels.tolist() == [3]
        assert found.boxes.tolist() == [[2, 1, 7, 4]]


def test_each_box_crops_the_mask_of_its_row() -> None:
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, :, :8] = True
    masks[1, 8:] = True
    boxes = torch.tensor([[0.0, 0, 16, 16]]).repeat(3, 1)
    cropped = mask_ops.crop_and_resize(masks, boxes, 2, torch.tensor([1, 0, 1]))
    upper, left = [[False, False], [True, True]], [[True, False], [True, False]]
    assert cropped.tolist() == [upper, left, upper]


def test_the_share_of_a_cell_that_is_set() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :, :6] = True
    box = torch.tensor([[0.0, 0, 16, 16]])
    shares = mask_ops.crop_softly(masks, box, 4, torch.tensor([0]), aligned=True)
    torch.testing.assert_close(shares[0, 1], torch.tensor([1.0, 0.5, 0, 0]))


def test_pasting_on_whole_pixels_is_torchvisions() -> None:
    maps, corner = torch.rand(6, 28, 28), 60 * torch.rand(6, 2)
    boxes = torch.cat([corner, corner + 1 + 40 * torch.rand(6, 2)], dim=1)
    wanted = paste_masks_in_image(maps[:, None], boxes, (100, 90))[:, 0] > 0.5
    assert torch.equal(mask_ops.paste(*mask_ops.on_whole_pixels(maps, boxes), (100, 90)).dense(), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("cast", [False, True])
def test_a_gpu_counts_the_same_pixels(cast: bool) -> None:
    a, b = blobs(5, (64, 96)), blobs(3, (64, 96))
    for first, second in ((a, b), (a, a), (a[:0], b), (b, a[:0])):
        there = [masks.cuda() for masks in (first, second)]
        with torch.autocast("cuda", torch.bfloat16, enabled=cast):
            found = mask_ops.pairwise_iou(*there)
            alone = mask_ops.pairwise_iou(there[0], there[0])
        torch.testing.assert_close(found.cpu(), mask_ops.pairwise_iou(first, second), rtol=1e-6, atol=0)
        torch.testing.assert_close(alone.cpu(), mask_ops.pairwise_iou(first, first), rtol=1e-6, atol=0)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_masks() -> None:
    """A few of them large, most in a corner, where a CPU looks through windows."""
    maps = torch.zeros(9, 32, 40)
    maps[:2] = torch.rand(2, 1, 4, 5).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, 0]
    maps[2:, 3:8, 4:9] = torch.rand(7, 5, 5)
    frame = Frame(1, photo=(300, 390), resized=(120, 156))
    here, there = (mask_ops.to_photo(moved, frame, 4).dense() for moved in (maps, maps.cuda()))
    assert (here != there.cpu()).float().mean() < 1e-4
    assert here.any()


def test_a_mask_is_as_sure_as_its_mean_probability() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[0, :2] = 0.75
    maps[0, 2:] = 0.5  # not of the mask
    maps[1] = 1.0
    assert mask_ops.maskness(maps).tolist() == [0.75, 1.0, 0.0]
    assert mask_ops.maskness(maps[:0]).shape == (0,)
