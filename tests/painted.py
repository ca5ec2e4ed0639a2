"""Instances drawn by hand, for what shows or writes them."""

from __future__ import annotations

import torch

from maskbench.structures import Instances, Masks

SIZE = (80, 100)


def squares(*corners: tuple[int, int], side: int = 20) -> Instances:
    """Squares by their top left corner (y, x), the first with the highest score."""
    stack = torch.zeros((len(corners), *SIZE), dtype=torch.bool)
    for mask, (y, x) in zip(stack, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    boxes = torch.tensor([[x, y, x + side, y + side] for y, x in corners], dtype=torch.float32).reshape(-1, 4)
    count = len(corners)
    return Instances(Masks(stack), boxes, torch.zeros(count, dtype=torch.long), torch.linspace(0.9, 0.5, count))
