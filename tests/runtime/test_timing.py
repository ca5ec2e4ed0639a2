from __future__ import annotations

import pytest

from maskbench.errors import ConfigError
from maskbench.runtime.compose import build_data
from maskbench.runtime.timing import first_photos, pick_device
from trained import TINY, composed


def test_the_first_photos_come_one_by_one_and_without_their_truth() -> None:
    data = build_data(composed("train", TINY))
    photos = first_photos(data, 3)
    assert [photo.frames[0].image_id for photo in photos] == list(data.image_ids("test")[:3])
    assert all(len(photo) == 1 and len(photo.targets[0]) == 0 for photo in photos)
    dataset = data.dataset("test")
    assert all((photo.images == data.collate([dataset[row]]).images).all() for row, photo in enumerate(photos))
    assert len(first_photos(data, 100)) == 4
    (three,) = first_photos(data, 100, batch=3)  # the fourth would be a batch of one
    assert [frame.image_id for frame in three.frames] == list(data.image_ids("test")[:3])


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:0"])
def test_a_device_that_is_not_there_is_told_from_those_that_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert pick_device(None).type == pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=f"device={name}: expected one of cpu"):
        pick_device(name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if name != "gpu":
        assert pick_device(name).type == pick_device(None).type == "cuda"
    with pytest.raises(ConfigError, match="device=cuda:2: expected one of cpu, cuda, cuda:0, cuda:1"):
        pick_device("cuda:2")
