from __future__ import annotations

from pathlib import Path

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from maskbench.data.coco import CocoFile
from maskbench.data.dataset import CocoDataset, collate
from maskbench.data.transforms import Eval, Train, Transforms
from maskbench.errors import DataError


def dataset(
    root: Path, transforms: Transforms | None = None, seed: int | None = None, skip: bool = False
) -> CocoDataset:
    file = CocoFile(root / "annotations" / "instances_train.json")
    labels = {category_id: label for label, category_id in enumerate(file.categories)}
    return CocoDataset(
        file, root / "images", list(file.records), labels, transforms or Transforms(), seed=seed, skip=skip
    )


def test_a_batch_by_hand(write) -> None:
    data = dataset(write())
    batch = collate([data[0], data[1], data[2]])
    assert batch.images.shape == (3, 3, 32, 32)
    assert [frame.image_id for frame in batch.frames] == [7, 11, 30]
    assert {(frame.photo, frame.resized) for frame in batch.frames} == {((20, 30), (20, 30))}
    empty, pair, full = batch.targets
    assert len(empty) == 0
    assert empty.masks.size == (32, 32)
    assert pair.boxes.tolist() == [[3, 2, 10, 8], [5, 5, 20, 12]]
    assert pair.labels.tolist() == [1, 0]
    assert pair.scores.tolist() == [1, 1]
    assert pair.masks.areas().tolist() == [42, 105]
    assert full.boxes.tolist() == [[0, 0, 30, 20]]
    assert not full.masks.dense()[:, 20:].any()


def test_pixels_are_padded_with_zeros(write) -> None:
    root = write()
    data = dataset(root)
    batch = collate([data[0]], divisor=16)
    with Image.open(root / "images" / "a.png") as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert batch.images.shape == (1, 3, 32, 32)
    assert torch.equal(batch.images[0, :, :20, :30], expected)
    assert not batch.images[0, :, 20:].any()
    assert not batch.images[0, :, :, 30:].any()


def test_images_of_a_batch_are_padded_to_the_largest(write) -> None:
    root = write()
    small, large = dataset(root)[0], dataset(root, Transforms(eval=Eval(short=50)))[1]
    batch = collate([small, large], divisor=8)
    assert batch.images.shape == (2, 3, 56, 80)
    assert [frame.resized for frame in batch.frames] == [(20, 30), (50, 75)]
    assert batch.frames[1].scale == (2.5, 2.5)
    assert batch.targets[1].boxes[0].tolist() == pytest.approx([7.5, 5, 25, 20], abs=0.51)


def test_what_a_crop_leaves_outside_is_no_target(write) -> None:
    data = dataset(write(), Transforms(train=Train(crop=6)), seed=0)
    counts = set()
    for epoch in range(20):
        batch = collate([data[epoch, 1]])
        target = batch.targets[0]
        assert (target.masks.areas() > 0).all()
        assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()
        assert target.boxes.numpy().max(initial=0) <= 6
        counts.add(len(target))
    assert counts == {0, 1, 2}


def test_large_stacks_of_masks_come_encoded(write) -> None:
    sample = dataset(write())[1]
    dense = collate([sample], dense_bytes=2 * 32 * 32).targets[0]
    encoded = collate([sample], dense_bytes=2 * 32 * 32 - 1).targets[0]
    assert dense.masks.is_dense
    assert not encoded.masks.is_dense
    assert torch.equal(dense.masks.dense(), encoded.masks.dense())
    assert torch.equal(dense.boxes, encoded.boxes)


def test_a_photo_of_another_size_than_its_record(write, content: dict) -> None:
    root = write()
    Image.new("RGB", (20, 30)).save(root / "images" / "a.png")
    with pytest.raises(DataError, match=r"a.png: has 30 x 20 stored pixels .* says 20 x 30"):
        dataset(root)[0]


class TestUnreadable:
    @pytest.fixture
    def root(self, write) -> Path:
        root = write()
        whole = (root / "images" / "b.png").read_bytes()
        (root / "images" / "b.png").write_bytes(whole[: len(whole) // 2])
        return root

    def test_it_stops_training(self, root: Path) -> None:
        with pytest.raises(DataError, match=r"b\.png: is broken"):
            dataset(root, seed=0)[0, 1]

    def test_it_is_nothing_without_objects_where_it_is_skipped(self, root: Path) -> None:
        data = dataset(root, Transforms(train=Train(crop=16)), seed=0, skip=True)
        batch = collate([data[3, 0], data[3, 1], data[3, 2]])
        assert batch.unreadable == (11,)
        assert [frame.image_id for frame in batch.frames] == [7, 11, 30]
        assert not batch.images[1].any()
        assert [len(target) for target in batch.targets] == [0, 0, 1]
        assert batch.to("cpu").unreadable == (11,)
        assert [single.unreadable for single in batch] == [(), (11,), ()]

    def test_the_others_are_what_they_would_be(self, root: Path, write) -> None:
        data = dataset(root, Transforms(train=Train(crop=16)), seed=0, skip=True)
        found = [data[epoch, index].image for epoch in range(3) for index in (0, 2)]
        whole = dataset(write(), Transforms(train=Train(crop=16)), seed=0)
        for image, expected in zip(
            found, (whole[epoch, index].image for epoch in range(3) for index in (0, 2)), strict=True
        ):
            np.testing.assert_array_equal(image, expected)

    def test_a_batch_of_nothing_else_is_a_batch(self, root: Path) -> None:
        batch = collate([dataset(root, seed=0, skip=True)[0, 1]] * 2)
        assert batch.unreadable == (11, 11)
        assert not batch.images.any()

    def test_no_photo_is_skipped_in_evaluation(self, root: Path) -> None:
        with pytest.raises(DataError, match=r"b\.png: is broken .*No photo is skipped in evaluation: AP would be"):
            dataset(root, skip=True)[1]

    def test_a_photo_of_another_size_is_no_reason_to_skip(self, write) -> None:
        root = write()
        Image.new("RGB", (20, 30)).save(root / "images" / "a.png")
        with pytest.raises(DataError, match="stored pixels"):
            dataset(root, seed=0, skip=True)[0, 0]


def test_the_most_crowded_nuclei_are_what_pycocotools_has(shared: Path) -> None:
    root = shared / "data" / "dsb2018"
    data = dataset(root)
    reference = COCO(data.file.path)
    image_id = max(reference.imgs, key=lambda each: len(reference.imgToAnns[each]))
    target = collate([data[data.image_ids.index(image_id)]], divisor=1, dense_bytes=0).targets[0]
    expected = [reference.annToMask(annotation) for annotation in reference.imgToAnns[image_id]]
    assert len(target) == len(expected) == 375
    assert target.masks.rle() == [rle_codec.encode(np.asfortranarray(mask)) for mask in expected]


def test_real_photos_in_colour_grey_and_with_crowds(shared: Path) -> None:
    file = CocoFile(shared / "data" / "coco_slice" / "annotations" / "instances_train_all.json")
    images = shared / "data" / "coco_slice" / "images"
    grey = 86
    crowds = [image_id for image_id in file.records if file.counts(image_id)[1]]
    chosen = [grey, *crowds[:3]]
    labels = {category_id: label for label, category_id in enumerate(file.categories)}
    data = CocoDataset(file, images, chosen, labels, Transforms(eval=Eval(short=256)))
    batch = collate([data[index] for index in range(len(data))])
    for image_id, target, frame in zip(chosen, batch.targets, batch.frames, strict=True):
        categories, _ = file.counts(image_id)
        # a few of COCO's slivers vanish at this size
        assert len(categories) - 3 <= len(target) <= len(categories)
        assert min(frame.resized) == 256
