from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskbench.data import profile as module
from maskbench.data.profile import Objects, profile_at, touching

TRAIN = "annotations/instances_train.json"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKBENCH_CACHE", str(tmp_path / "cache"))


def test_statistics_by_hand(write) -> None:
    found = profile_at(write(), TRAIN)
    assert found.classes == {"disc": 1, "star": 2}
    assert (found.images, found.empty, found.instances, found.crowds) == (3, 1, 3, 1)
    assert found.photo_sides == {"short": [20.0] * 5, "long": [30.0] * 5}
    assert found.most_per_image == 2
    assert found.per_image[2] == 1  # the median of 0, 1, 2
    assert found.sizes[2] == round((7 * 15) ** 0.5, 2)  # the median of 6 x 7, 7 x 15 and 20 x 30
    assert found.crowding == pytest.approx(2 / 3)  # two overlap, the third is alone
    assert found.sampled == 3


def test_each_object_by_hand(write) -> None:
    """Photos in the order of their hashes. The crowd is none."""
    found = profile_at(write(), TRAIN).objects
    assert found.photos == [[20, 30]] * 3
    objects = sorted(row[1:] for row in found.rows)
    assert objects == [
        [0, 0, 30, 20, 14.5, 9.5, 600],
        [3, 2, 10, 8, 6.0, 4.5, 42],
        [5, 5, 20, 12, 12.0, 8.0, 105],
    ]
    assert len({row[0] for row in found.rows}) == 2  # two of them are in one photo


def test_single_objects_are_for_rules_and_not_for_readers(write) -> None:
    shown = profile_at(write(), TRAIN).as_dict()
    assert "objects" not in shown
    assert shown["instances"] == 3


def test_a_known_profile_needs_no_file(write, monkeypatch: pytest.MonkeyPatch) -> None:
    first = profile_at(write(), TRAIN)
    monkeypatch.setattr(module, "read_file", lambda *_: pytest.fail("read again"))
    again = profile_at(write(name="elsewhere"), TRAIN)  # the same content in another place
    assert again == first
    assert isinstance(again.objects, Objects)


def test_no_more_photos_than_there_are_objects_wanted(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OBJECTS", 1)
    found = profile_at(write(), TRAIN)
    assert found.sampled == len(found.objects.photos) < 3
    assert found.instances == 3


def test_it_is_computed_once(write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write()
    first = profile_at(root, TRAIN)
    monkeypatch.setattr(module, "_compute", lambda *_: pytest.fail("computed again"))
    assert profile_at(root, TRAIN) == first
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        profile_at(root, TRAIN, 0.5)


def test_large_sets_are_sampled(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 1)
    found = profile_at(write(), TRAIN)
    assert (found.sampled, found.images, found.instances) == (1, 3, 3)


def test_no_objects_at_all(write, content: dict) -> None:
    found = profile_at(write({**content, "annotations": []}), TRAIN)
    assert (found.instances, found.sizes, found.crowding, found.empty) == (0, [], 0.0, 3)


@pytest.mark.parametrize(
    ("other", "touches"),
    [
        ((2, 3), True),  # right of it
        ((3, 2), True),  # below
        ((3, 3), True),  # a corner
        ((3, 1), True),  # the other corner
        ((1, 3), True),
        ((2, 4), False),  # a pixel between them
        ((4, 2), False),
        ((0, 0), False),
    ],
)
def test_touching_is_by_border_or_corner(other: tuple[int, int], touches: bool) -> None:
    labels = np.zeros((5, 6), np.uint16)
    labels[2, 2] = 1
    labels[other] = 2
    assert touching([labels], 3).tolist() == [touches, touches, False]
    apart = [np.where(labels == value, labels, 0).astype(np.uint16) for value in (1, 2)]
    assert touching(apart, 2).tolist() == [touches, touches]


def test_overlapping_is_touching() -> None:
    one, two = np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.uint16)
    one[1, 1], two[1, 1] = 1, 2
    assert touching([one, two], 2).all()
    assert touching([], 0).tolist() == []
