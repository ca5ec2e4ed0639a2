from __future__ import annotations

import math

import pytest
import torch

from maskbench.ops import boxes as box_ops
from maskbench.structures import Frame

WEIGHTS = (10.0, 5.0)


def some_boxes(count: int) -> torch.Tensor:
    corner = torch.rand(count, 2) * 100
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * 60], dim=1)


def test_deltas_by_hand() -> None:
    box, target = torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 20]])
    # The centre moves from (5, 10) to (15, 10), one width; the width doubles.
    torch.testing.assert_close(box_ops.encode(box, target), torch.tensor([[1, 0, math.log(2), 0]]))
    torch.testing.assert_close(box_ops.encode(box, target, WEIGHTS), torch.tensor([[10, 0, 5 * math.log(2), 0]]))


def test_decode_undoes_encode() -> None:
    boxes, targets = some_boxes(50), some_boxes(50)
    deltas = box_ops.encode(boxes, targets, WEIGHTS)
    torch.testing.assert_close(box_ops.decode(boxes, deltas, WEIGHTS), targets)


def test_decode_takes_a_box_for_each_class() -> None:
    boxes, deltas = some_boxes(5), torch.randn(5, 3, 4)
    decoded = box_ops.decode(boxes, deltas)
    assert decoded.shape == (5, 3, 4)
    torch.testing.assert_close(decoded[:, 1], box_ops.decode(boxes, deltas[:, 1]))


def test_sizes_change_by_no_more_than_a_limit_both_ways() -> None:
    box = torch.tensor([[0.0, 0, 16, 16]])
    larger, smaller = (box_ops.decode(box, torch.tensor([[0.0, 0, sign * 9, 0]]))[0] for sign in (1, -1))
    assert (larger[2] - larger[0]).item() == pytest.approx(1000)
    assert (smaller[2] - smaller[0]).item() == pytest.approx(16 * 16 / 1000)
    assert (larger[3] - larger[1]).item() == pytest.approx(16)


def test_clip_cuts_to_height_and_width() -> None:
    boxes = torch.tensor([[-3.0, -4, 50, 60], [5, 6, 7, 8]])
    assert box_ops.clip(boxes, (20, 30)).tolist() == [[0, 0, 30, 20], [5, 6, 7, 8]]


def test_a_box_without_width_or_height_is_empty() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 0], [3, 0, 2, 1]])
    assert box_ops.not_empty(boxes).tolist() == [True, False, False, False]


def test_the_way_to_the_photo() -> None:
    frame = Frame(1, photo=(100, 50), resized=(200, 150))  # twice as high, three times as wide
    boxes = torch.tensor([[30.0, 20, 60, 40], [0, 0, 192, 256]])  # the second reaches into the padding
    assert box_ops.to_photo(boxes, frame).tolist() == [[10, 10, 20, 20], [0, 0, 50, 100]]


def test_batch_index_counts_images_also_those_without_boxes() -> None:
    indexed = box_ops.batch_index([some_boxes(2), some_boxes(0), some_boxes(1)])
    assert indexed.shape == (3, 5)
    assert indexed[:, 0].tolist() == [0, 0, 2]
