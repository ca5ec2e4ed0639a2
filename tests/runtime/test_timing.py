from __future__ import annotations

from maskbench.runtime.compose import build_data
from maskbench.runtime.timing import first_photos
from trained import TINY, composed


def test_the_first_photos_come_one_by_one_and_without_their_truth() -> None:
    data = build_data(composed("train", TINY))
    photos = first_photos(data, 3)
    assert [photo.frames[0].image_id for photo in photos] == list(data.image_ids("test")[:3])
    assert all(len(photo) == 1 and len(photo.targets[0]) == 0 for photo in photos)
    dataset = data.dataset("test")
    assert all((photo.images == data.collate([dataset[row]]).images).all() for row, photo in enumerate(photos))
    assert len(first_photos(data, 100)) == 4
