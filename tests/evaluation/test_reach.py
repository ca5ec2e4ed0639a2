from __future__ import annotations

from maskbench.evaluation.reach import Reach
from maskbench.structures import Frame


def test_stages_are_summed_over_images_each_of_which_counts_once() -> None:
    frames = [Frame(image_id, (4, 4), (4, 4)) for image_id in (7, 3, 7)]
    reach = Reach()
    reach.update([{"a cell": (1, 2), "another": (0, 0)}, {"a cell": (3, 5), "another": (0, 1)}], frames[:2])
    reach.update([{"a cell": (9, 9), "another": (9, 9)}], frames[2:])
    assert reach.compute() == {"a cell": {"reached": 4, "of": 7}, "another": {"reached": 0, "of": 1}}


def test_a_method_without_stages_has_none() -> None:
    reach = Reach()
    reach.update([{}, {}], [Frame(1, (4, 4), (4, 4)), Frame(2, (4, 4), (4, 4))])
    assert reach.compute() == {}
