from __future__ import annotations

import torch

from maskbench.evaluation.results import coco_results
from maskbench.runtime.pictures import found
from maskbench.structures import Frame, Instances, Masks


def test_results_become_the_instances_that_they_were() -> None:
    masks = torch.zeros((2, 6, 9), dtype=torch.bool)
    masks[0, 1:4, 2:8] = True
    masks[1, 5, :3] = True
    boxes = torch.tensor([[2.0, 1, 8, 4], [0, 5, 3, 6]])
    before = Instances(Masks(masks), boxes, torch.tensor([1, 0]), torch.tensor([0.75, 0.5]))
    results = coco_results(before, Frame(7, (6, 9), (6, 9)), (3, 8))
    after = found(results[::-1], (6, 9), (3, 8))
    assert torch.equal(after.masks.dense(), masks)
    assert torch.equal(after.boxes, boxes)
    assert (after.labels.tolist(), after.scores.tolist()) == ([1, 0], [0.75, 0.5])
    assert len(found([], (6, 9), (3, 8))) == 0
