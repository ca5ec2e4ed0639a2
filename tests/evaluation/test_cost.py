from __future__ import annotations

import pytest
import torch

from maskbench.evaluation.cost import count_flops, peak_memory

CPU = torch.device("cpu")
KILO = 1000


def test_what_is_freed_makes_room():
    def run() -> None:
        first = torch.zeros(KILO, dtype=torch.uint8)
        second = first + 1
        del first
        third = second + 1
        del second, third
        torch.zeros(KILO, dtype=torch.uint8)

    assert peak_memory(run, CPU)[0] == 2 * KILO


def test_views_and_what_was_there_before_cost_nothing():
    weights = torch.zeros(KILO, KILO)

    def run() -> torch.Tensor:
        return weights.T[:10].reshape(-1).view(10, KILO)[:5]

    # reshape copies the ten columns, and nothing else is new
    assert peak_memory(run, CPU)[0] == 10 * KILO * 4


def test_what_lives_on_counts_once_though_it_is_used_again():
    def run() -> torch.Tensor:
        made = torch.zeros(KILO, dtype=torch.uint8)
        for _ in range(5):
            made.add_(1)
        return made.view(10, 100)

    assert peak_memory(run, CPU)[0] == KILO


def test_memory_of_other_devices_is_not_made_up():
    assert peak_memory(lambda: None, torch.device("meta")) == (None, "not measured on meta")


@pytest.mark.parametrize("inference", [True, False])
def test_a_multiply_add_is_two_operations(inference: bool):
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1, bias=False)
    images = torch.zeros(1, 3, 8, 8)
    with torch.inference_mode(inference):
        assert count_flops(lambda: convolution(images)) == 2 * 3 * 3 * 3 * 4 * 8 * 8
