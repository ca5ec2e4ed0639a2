from __future__ import annotations

import pytest
import torch

from maskbench.evaluation.semantic_quality import SemanticQuality
from maskbench.structures import Frame


def areas(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)


def test_cells_of_all_images_are_summed_and_each_image_counts_once() -> None:
    """By hand: right 3 of 5 true and 4 taken cells of the first class, none of the second, 9 of 10 of background."""
    quality = SemanticQuality(["cell", "other"])
    first, second = areas([2, 0, 5], [3, 1, 5], [2, 0, 7]), areas([1, 0, 4], [2, 0, 5], [2, 0, 5])
    frames = [Frame(number, (8, 8), (8, 8)) for number in (1, 2)]
    quality.update([first, second], frames)
    quality.update([second], frames[1:])
    found = quality.compute()
    assert found["IoU"] == {"cell": 3 / 6, "other": 0, "background": 9 / 13}
    assert found["mIoU"] == pytest.approx((3 / 6 + 0 + 9 / 13) / 3)
    assert found["pixel_accuracy"] == 12 / 16


def test_a_class_that_is_nowhere_has_no_say() -> None:
    quality = SemanticQuality(["cell"])
    quality.update([areas([0, 4], [0, 4], [0, 4])], [Frame(1, (8, 8), (8, 8))])
    assert quality.compute() == {"mIoU": 1.0, "pixel_accuracy": 1.0, "IoU": {"background": 1.0}}


def test_a_method_without_a_semantic_map_has_none() -> None:
    quality = SemanticQuality(["cell"])
    quality.update([], [Frame(1, (8, 8), (8, 8))])
    assert quality.compute() == {}
