from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from maskbench.runtime.colours import PALETTE, Colours
from maskbench.runtime.overlays import draw, fit, readable, save
from maskbench.structures import Instances, Masks
from painted import squares

GREY = np.full((80, 100, 3), 100, dtype=np.uint8)
LARGE = np.full((600, 800, 3), 100, dtype=np.uint8)


def rectangles(*boxes: tuple[int, int, int, int]) -> Instances:
    """Filled boxes (left, top, right, bottom) on the large photo, the best first."""
    stack = torch.zeros((len(boxes), 600, 800), dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(stack, boxes, strict=True):
        mask[top:bottom, left:right] = True
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Instances(Masks(stack), Masks(stack).boxes(), torch.arange(len(boxes)) % 2, scores)


def named(photo: np.ndarray, found: Instances, classes: tuple[str, ...]) -> np.ndarray:
    """The row of the instance whose name lies on a pixel, without tint; -1 where there is none."""
    colours = [(row % 250 + 1, 255 - row // 250, 255) for row in range(len(found))]
    drawn, plain = (draw(photo, found, shown, colours, opacity=0) for shown in (classes, ()))
    red, green, blue = drawn.astype(int).transpose(2, 0, 1)
    row = red - 1 + 250 * (255 - green)
    own = (drawn != plain).any(axis=2) & (blue == 255) & (row >= 0) & (row < len(found))
    return np.where(own, row, -1)


def names(photo: np.ndarray, found: Instances, classes: tuple[str, ...]) -> list[np.ndarray]:
    """The pixels of each name."""
    rows = named(photo, found, classes)
    return [rows == row for row in range(len(found))]


def test_a_mask_is_blended_with_its_colour_and_nothing_else_is_touched() -> None:
    found = squares((10, 10))
    drawn = draw(GREY, found, opacity=0.5)
    assert drawn[20, 20].tolist() == [(100 + channel) // 2 for channel in Colours().of(found)[0]]
    outside = np.ones((80, 100), dtype=bool)
    outside[7:33, 7:33] = False  # the mask, its contour and that contour's smoothed edge
    assert (drawn[outside] == 100).all()
    assert (GREY == 100).all()


def test_the_best_lies_on_top_encoded_or_not() -> None:
    found = squares((10, 10), (10, 20))
    first, second = Colours().of(found)
    drawn = draw(GREY, found, opacity=1.0)
    assert drawn[20, 24].tolist() == list(first)
    assert drawn[20, 35].tolist() == list(second)
    encoded = Instances(Masks(found.masks.rle()), found.boxes, found.labels, found.scores)
    assert (draw(GREY, encoded, opacity=1.0) == drawn).all()


@pytest.mark.parametrize("background", [*PALETTE, (0, 0, 0), (255, 255, 255)])
def test_a_contour_stands_out_of_any_photo(background: tuple[int, int, int]) -> None:
    photo = np.full((80, 100, 3), background, np.uint8)
    drawn = draw(photo, squares((10, 10)), colours=[PALETTE[0]], opacity=0).astype(int)
    across = np.abs(drawn[20, 5:20] - background).sum(axis=1)  # from outside over the left edge
    assert across.max() > 200


def test_contours_of_holes_are_drawn() -> None:
    mask = torch.zeros((1, 80, 100), dtype=torch.bool)
    mask[0, 10:60, 10:60] = True
    mask[0, 25:45, 25:45] = False
    ring = Instances(Masks(mask), Masks(mask).boxes(), torch.zeros(1).long(), torch.ones(1))
    drawn = draw(GREY, ring, opacity=0)
    assert (drawn[35, 35] == 100).all()
    assert (drawn[35, 20:26] != 100).any()


def test_nothing_found_is_the_photo() -> None:
    assert (draw(GREY, squares(), ("thing",)) == GREY).all()
    assert (draw(GREY, squares((60, 80), side=0), ("thing",)) == GREY).all()


def test_small_photos_are_magnified_until_names_fit() -> None:
    assert [readable(np.zeros((side, 8, 3), np.uint8)) for side in (60, 128, 480, 5000)] == [8, 4, 1, 1]
    found = squares((30, 30))
    drawn = draw(GREY, found, ("thing",), zoom=readable(GREY))
    assert drawn.shape == (400, 500, 3)
    assert (drawn[137:148, 150:170] == Colours().of(found)[0]).all(axis=2).any(axis=0).all()  # the plate above the box
    assert not (draw(GREY, squares((30, 30)), zoom=5) == drawn).all()


def test_of_one_class_only_the_score_is_written() -> None:
    found = rectangles((300, 300, 500, 500))
    (short,), (long,) = names(LARGE, found, ("thing",)), names(LARGE, found, ("thing", "other thing"))
    assert 0 < short.any(axis=0).sum() < long.any(axis=0).sum() / 2


@pytest.mark.parametrize("corner", [(0, 0, 30, 30), (770, 0, 800, 30), (0, 570, 30, 600), (770, 570, 800, 600)])
def test_a_name_stays_whole_at_every_edge(corner: tuple[int, int, int, int]) -> None:
    classes = ("a rather long name", "b")
    (middle,), (edge,) = (names(LARGE, rectangles(box), classes) for box in ((400, 300, 430, 330), corner))
    assert edge.sum() > 0.9 * middle.sum() > 0


def test_letters_grow_with_the_photo() -> None:
    large = np.full((3000, 4000, 3), 100, np.uint8)
    mask = torch.zeros((1, 3000, 4000), dtype=torch.bool)
    mask[0, 1000:2000, 1000:2000] = True
    found = Instances(Masks(mask), Masks(mask).boxes(), torch.zeros(1).long(), torch.ones(1))
    heights = [
        np.ptp(np.flatnonzero(names(*case, ("a", "b"))[0].any(axis=1)))
        for case in (
            (LARGE, rectangles((300, 300, 500, 500))),
            (large, found),
        )
    ]
    assert heights[1] > 4 * heights[0]


def test_names_of_neighbours_lie_beside_each_other() -> None:
    plates = names(
        LARGE, rectangles((300, 300, 360, 420), (362, 300, 420, 420), (300, 422, 420, 480)), ("person", "cat")
    )
    assert all(plate.any() for plate in plates)
    rows = [(plate.any(axis=1).nonzero()[0], plate.any(axis=0).nonzero()[0]) for plate in plates]
    for one in range(3):
        for other in range(one):
            vertical, horizontal = (np.intersect1d(rows[one][axis], rows[other][axis]) for axis in (0, 1))
            assert not len(vertical) or not len(horizontal)


def test_a_name_that_would_hide_more_than_it_names_is_left_out() -> None:
    inside = rectangles((200, 150, 600, 450), (395, 295, 401, 301))
    large, small = names(LARGE, inside, ("person", "a very long name"))
    assert large.any()
    assert not small.any()


def test_a_crowd_keeps_the_names_of_the_large_ones() -> None:
    small = [(x, y, x + 8, y + 8) for y in range(0, 560, 24) for x in range(0, 400, 24)]
    rows = named(LARGE, rectangles((500, 100, 700, 300), *small), ("person", "cat"))
    assert np.unique(rows).tolist() == [-1, 0]


def test_an_overlay_is_turned_as_exif_says() -> None:
    found = squares((10, 60))
    photo = np.arange(80 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(80, 100, 3)
    upright = draw(photo, found, orientation=6, opacity=1.0)
    assert upright.shape == (100, 80, 3)
    assert (upright[70, 60] == Colours().of(found)[0]).all()  # row 19 from above is column 19 from the right
    assert (upright[0, -1] == photo[0, 0]).all()


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
