from __future__ import annotations

import torch

from maskbench.ops.points import cell_centres, grid_points, in_frame, sample_masks, sample_points, sample_regions


def ramp(height: int, width: int, stride: int = 1) -> torch.Tensor:
    """Two channels: x and y of each cell's centre, in pixels."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None] * stride


def test_a_map_of_positions_gives_the_points_themselves() -> None:
    points = torch.tensor([[[0.25, 0.5], [0.5, 0.75]]])
    found = sample_points(ramp(8, 16), points)
    torch.testing.assert_close(found[0].T, points[0] * torch.tensor([16.0, 8]))


def test_points_of_a_box_in_their_frame() -> None:
    points = torch.tensor([[[0.0, 0], [1, 1], [0.5, 0.5]]])
    found = in_frame(points, torch.tensor([[10.0, 20, 30, 60]]), (100, 200))
    torch.testing.assert_close(found[0], torch.tensor([[0.05, 0.2], [0.15, 0.6], [0.1, 0.4]]))


def test_each_region_is_sampled_from_its_own_image() -> None:
    feature = torch.cat([ramp(16, 16, stride=4), 100 + ramp(16, 16, stride=4)])
    boxes = [torch.tensor([[8.0, 8, 24, 40]]), torch.tensor([[8.0, 8, 24, 40], [20, 20, 40, 40]])]
    centre = torch.full((3, 1, 2), 0.5)
    found = sample_regions(feature, boxes, centre, 4)[..., 0]
    torch.testing.assert_close(found, torch.tensor([[16.0, 24], [116, 124], [130, 130]]))
    assert sample_regions(feature, [boxes[0][:0]] * 2, centre[:0], 4).shape == (0, 2, 1)


def test_masks_are_sampled_as_maps_are() -> None:
    masks = torch.rand(3, 9, 7) > 0.5
    rows = torch.tensor([2, 0, 2, 1])
    points = 1.2 * torch.rand(4, 20, 2) - 0.1  # some of them outside
    expected = sample_points(masks[rows, None].float(), points)[:, 0]
    torch.testing.assert_close(sample_masks(masks, rows, points), expected)


def test_a_mask_is_half_there_on_its_edge() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :, 2:] = True
    points = torch.tensor([[[0.5, 0.5], [0.375, 0.5], [0.625, 0.5]]])
    assert sample_masks(mask, torch.tensor([0]), points).tolist() == [[0.5, 0.0, 1.0]]


def test_centres_of_cells() -> None:
    found = cell_centres(torch.tensor([[0, 3, 4]]), (2, 4))
    torch.testing.assert_close(found[0], torch.tensor([[0.125, 0.25], [0.875, 0.25], [0.125, 0.75]]))
    grid = grid_points(2, 2, torch.device("cpu"))
    assert grid.shape == (2, 4, 2)
    assert grid[1].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
