from __future__ import annotations

import numpy as np
import torch

from maskbench.runtime.media import class_map
from maskbench.structures import Instances, Masks


def test_the_class_map_shows_the_best_instance_of_each_pixel() -> None:
    masks = torch.zeros((3, 4, 6), dtype=torch.bool)
    masks[0, :, :2] = True
    masks[1, :, 1:4] = True
    masks[2] = True  # too faint to be shown
    found = Instances(Masks(masks), torch.zeros(3, 4), torch.tensor([4, 0, 1]), torch.tensor([0.9, 0.5, 0.2]))
    assert (class_map(found) == np.array([5, 5, 1, 1, 0, 0])).all()
    assert not class_map(Instances.empty((4, 6))).any()
