from __future__ import annotations

import numpy as np
import pytest

from maskbench.runtime.lettering import FREE, PLATE, head_line, letter_size, place, plate, shortened

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def test_letters_are_a_64th_of_a_picture_and_never_too_small() -> None:
    assert [letter_size(size) for size in ((100, 80), (480, 640), (1080, 1920), (6000, 4000))] == [12, 12, 30, 94]


@pytest.mark.parametrize("text", ["Zürich", "łódź", "клетка", "κύτταρο"])
def test_letters_of_many_alphabets_are_drawn(text: str) -> None:
    missing = plate("￿" * len(text), 20, WHITE)
    drawn = plate(text, 20, WHITE)
    assert (drawn < 128).any()
    assert drawn.shape != missing.shape or (drawn != missing).any()
    assert len({plate(letter, 20, WHITE).tobytes() for letter in set(text)}) == len(set(text))


def test_words_are_cut_to_the_room_there_is() -> None:
    assert shortened("mask_rcnn", 12, 500) == "mask_rcnn"
    cut = shortened("mask_rcnn", 12, 40)
    assert cut.endswith("…")
    assert plate(cut, 12, BLACK).shape[1] <= 40 < plate("mask_rcnn", 12, BLACK).shape[1]
    assert shortened("mask_rcnn", 12, 3) == ""


def test_a_head_line_has_words_at_both_ends_and_the_width_it_is_given() -> None:
    line = head_line(("solov2", "3 instances"), 400, 12)
    dark = np.flatnonzero((line < 128).any(axis=(0, 2)))
    assert line.shape[1] == 400
    assert dark[0] < 10
    assert dark[-1] > 390
    assert not ((line < 128).any(axis=(0, 2)))[150:250].any()
    assert head_line(("a long name", "3 instances"), 5, 12).shape[1] == 5


def test_a_name_goes_above_its_instance_or_where_it_hides_least() -> None:
    owners = np.full((100, 100), FREE, np.int32)
    owners[40:60, 40:60] = 1
    assert place(owners, 1, (40, 40, 60, 60), (10, 20)) == (30, 40)
    owners[25:40] = 2
    assert place(owners, 1, (40, 40, 60, 60), (10, 20)) == (60, 40)
    owners[60:80] = PLATE
    assert place(owners, 1, (40, 40, 60, 60), (10, 20)) == (40, 40)  # on itself


def test_no_place_is_none() -> None:
    owners = np.full((100, 100), PLATE, np.int32)
    assert place(owners, 1, (40, 40, 60, 60), (10, 20)) is None
    assert place(np.full((100, 15), FREE, np.int32), 1, (40, 4, 60, 10), (10, 20)) is None
