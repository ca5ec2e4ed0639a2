from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from maskbench.runtime.overlays import colour, draw, fit, readable, save
from maskbench.structures import Instances, Masks

GREY = np.full((80, 100, 3), 100, dtype=np.uint8)


def squares(*corners: tuple[int, int], side: int = 20) -> Instances:
    """Squares by their top left corner (y, x), the first with the highest score."""
    stack = torch.zeros((len(corners), 80, 100), dtype=torch.bool)
    for mask, (y, x) in zip(stack, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    boxes = torch.tensor([[x, y, x + side, y + side] for y, x in corners], dtype=torch.float32).reshape(-1, 4)
    count = len(corners)
    return Instances(Masks(stack), boxes, torch.zeros(count, dtype=torch.long), torch.linspace(0.9, 0.5, count))


def test_each_instance_has_its_own_colour() -> None:
    assert len({colour(row) for row in range(100)}) == 100
    near = np.array([colour(row) for row in range(101)], dtype=float)
    assert np.linalg.norm(np.diff(near, axis=0), axis=1).min() > 60


def test_a_mask_is_blended_with_its_colour_and_nothing_else_is_touched() -> None:
    drawn = draw(GREY, squares((10, 10)), opacity=0.5)
    assert drawn[20, 20].tolist() == [(100 + channel) // 2 for channel in colour(0)]
    outside = np.ones((80, 100), dtype=bool)
    outside[8:32, 8:32] = False  # the mask, its contour and that contour's smoothed edge
    assert (drawn[outside] == 100).all()
    assert (GREY == 100).all()


def test_the_best_lies_on_top_encoded_or_not() -> None:
    found = squares((10, 10), (10, 20))
    drawn = draw(GREY, found, opacity=1.0)
    assert drawn[20, 25].tolist() == list(colour(0))
    assert drawn[20, 35].tolist() == list(colour(1))
    encoded = Instances(Masks(found.masks.rle()), found.boxes, found.labels, found.scores)
    assert (draw(GREY, encoded, opacity=1.0) == drawn).all()


def test_nothing_found_is_the_photo() -> None:
    assert (draw(GREY, squares(), ("thing",)) == GREY).all()
    assert (draw(GREY, squares((60, 80), side=0), ()) == GREY).all()


def test_small_photos_are_magnified_until_names_fit() -> None:
    assert [readable(np.zeros((side, 8, 3), np.uint8)) for side in (60, 128, 480, 5000)] == [8, 4, 1, 1]
    drawn = draw(GREY, squares((30, 30)), ("thing",), zoom=readable(GREY))
    assert drawn.shape == (400, 500, 3)
    assert (drawn[148, 151] == colour(0)).all()  # the plate above the box
    assert not (draw(GREY, squares((30, 30)), zoom=5) == drawn).all()


def test_a_name_stays_inside_the_photo() -> None:
    photo = np.zeros((600, 800, 3), np.uint8)
    mask = torch.zeros((1, 600, 800), dtype=torch.bool)
    mask[0, 590:, 790:] = True
    corner = Instances(Masks(mask), torch.tensor([[790.0, 590, 800, 600]]), torch.tensor([0]), torch.ones(1))
    drawn = draw(photo, corner, ("a rather long name",))
    assert drawn[:, 600:].any()
    plate = (drawn == colour(0)).all(axis=-1)
    assert plate.any(axis=0).argmax() > 600


def test_photo_and_masks_must_agree() -> None:
    with pytest.raises(ValueError, match=r"the photo has \(80, 100\) pixels, its masks \(8, 8\)"):
        draw(GREY, Instances.empty((8, 8)))


def test_fit_keeps_proportions_and_never_enlarges() -> None:
    assert fit(GREY, 50).shape == (40, 50, 3)
    assert fit(GREY, 200) is GREY
    assert fit(np.zeros((1000, 2, 3), np.uint8), 100).shape == (100, 1, 3)


def test_saved_pixels_come_back(tmp_path) -> None:
    path = save(draw(GREY, squares((0, 0))), tmp_path / "a folder" / "ü.png")
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert (stored[:, :, ::-1] == draw(GREY, squares((0, 0)))).all()
