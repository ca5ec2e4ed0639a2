from __future__ import annotations

import numpy as np
import pycocotools.mask as rle_codec
import pytest

from maskbench.data.runs import encode, extent, label_maps, locate, run_lengths, separate


def random_masks(count: int, height: int, width: int, share: float = 0.5) -> np.ndarray:
    return np.random.default_rng(count).random((count, height, width)) < share


def runs_of(mask: np.ndarray) -> np.ndarray:
    return run_lengths(rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8)), mask.shape)


def test_runs_by_hand() -> None:
    # columns of three: .X. XX.
    mask = np.array([[0, 1], [1, 1], [0, 0]], dtype=np.uint8)
    assert runs_of(mask).tolist() == [1, 1, 1, 2, 1]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 4), (1, 2000), (700, 900)])
def test_the_string_of_runs_is_read_as_pycocotools_reads_it(size: tuple[int, int], share: float) -> None:
    mask = random_masks(1, *size, share)[0]
    runs = runs_of(mask)
    assert runs[1::2].sum() == mask.sum()
    maps = label_maps([runs], size)
    np.testing.assert_array_equal(maps[0].astype(bool), mask)


def test_three_spellings_are_one_mask() -> None:
    polygon = [[3, 2, 10, 2, 10, 8, 3, 8]]
    encoded = rle_codec.merge(rle_codec.frPyObjects(polygon, 20, 30))
    as_text = {"size": [20, 30], "counts": encoded["counts"].decode()}
    runs = run_lengths(polygon, (20, 30))
    np.testing.assert_array_equal(run_lengths(as_text, (20, 30)), runs)
    np.testing.assert_array_equal(run_lengths({"size": [20, 30], "counts": runs.tolist()}, (20, 30)), runs)
    assert runs[1::2].sum() == 6 * 7


@pytest.mark.parametrize("counts", [[3, 4], [200], [50, 60, -10], "34", "", "0000"])
def test_runs_that_do_not_fill_the_photo(counts: list[int] | str) -> None:
    with pytest.raises(ValueError, match="cover"):
        run_lengths({"size": [10, 10], "counts": counts}, (10, 10))


def test_instances_that_do_not_overlap_share_a_map() -> None:
    masks = np.zeros((4, 6, 6), bool)
    masks[0, :3], masks[1, 3:], masks[2, 2:4], masks[3, 0, 0] = True, True, True, True
    maps = label_maps([runs_of(mask) for mask in masks], (6, 6))
    # the third overlaps both; the fourth overlaps the first alone
    assert [sorted(set(each.flat) - {0}) for each in maps] == [[1, 2], [3, 4]]


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_nothing_is_lost_in_label_maps(share: float) -> None:
    masks = random_masks(9, 23, 17, share)
    rows, boxes, found = separate(label_maps([runs_of(mask) for mask in masks], (23, 17)), 9, (32, 32))
    np.testing.assert_array_equal(rows, np.arange(9))
    np.testing.assert_array_equal(found[:, :23, :17], masks)
    assert not found[:, 23:].any()
    assert not found[:, :, 17:].any()
    for mask, box in zip(masks, boxes, strict=True):
        x, y, width, height = rle_codec.toBbox(rle_codec.encode(np.asfortranarray(mask, dtype=np.uint8)))
        assert box.tolist() == [x, y, x + width, y + height]


def test_rows_that_are_gone_are_left_out() -> None:
    labels = np.zeros((4, 5), np.uint16)
    labels[1, 2] = 3
    rows, boxes, masks = separate([labels], 4, (4, 5))
    assert rows.tolist() == [2]
    assert boxes.tolist() == [[2, 1, 3, 2]]
    assert masks.sum() == 1


def test_no_instances_make_no_maps() -> None:
    assert label_maps([], (4, 5)) == []
    rows, boxes, masks = separate([], 0, (4, 5))
    assert (len(rows), boxes.shape, masks.shape) == (0, (0, 4), (0, 4, 5))


def test_encoded_masks_are_the_dense_ones() -> None:
    masks = random_masks(6, 23, 17)
    maps = label_maps([runs_of(mask) for mask in masks], (23, 17))
    rows, boxes = locate(maps, 6)
    decoded = [rle_codec.decode(each) for each in encode(maps, rows, boxes, (32, 64))]
    _, _, dense = separate(maps, 6, (32, 64))
    np.testing.assert_array_equal(np.stack(decoded), dense)


def test_more_instances_than_numbers() -> None:
    one = np.array([0, 1])
    with pytest.raises(ValueError, match="65535 instances, found 65536"):
        label_maps([one] * 65536, (1, 1))


def test_where_a_mask_lies_by_hand() -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[1:3, 2:6] = 1
    mask[4, 2] = 1
    found = extent(runs_of(mask), 5)
    assert found is not None
    assert found.box == (2, 1, 6, 5)
    assert found.centre == pytest.approx(((2 * (2 + 3 + 4 + 5) + 2) / 9, (4 * (1 + 2) + 4) / 9))


def test_a_mask_without_a_pixel_lies_nowhere() -> None:
    assert extent(np.array([35]), 5) is None
