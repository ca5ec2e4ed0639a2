from __future__ import annotations

import os

import albumentations
import numpy as np
import pytest

from maskbench.data.transforms import Crop, Eval, KeepRatio, Train, Transforms, fitted
from maskbench.errors import ConfigError

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def a_map() -> np.ndarray:
    labels = np.zeros((40, 60), np.uint16)
    labels[4:12, 6:20] = 1
    labels[20:39, 30:59] = 300
    return labels


@pytest.mark.parametrize(
    ("photo", "short", "long", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((400, 1200), 800, 1333, (444, 1333)),  # the long side's cap wins
        ((128, 128), None, None, (128, 128)),
        ((1000, 2000), None, 500, (250, 500)),
        ((100, 200), None, 500, (100, 200)),
        ((1, 5000), None, 100, (1, 100)),
    ],
)
def test_sizes_are_detectron2s(photo: tuple, short: int | None, long: int | None, expected: tuple) -> None:
    assert fitted(photo, short, long) == expected


def test_the_factor_scales_what_fits() -> None:
    assert fitted((480, 640), 800, 1333, 0.5) == (400, 533)


def test_by_default_nothing_changes() -> None:
    labels = a_map()
    for image, maps in (Transforms().eval(PHOTO, [labels]), Transforms().train(PHOTO, [labels], (0, 0, 0))):
        np.testing.assert_array_equal(image, PHOTO)
        np.testing.assert_array_equal(maps[0], labels)


def test_masks_move_with_the_pixels() -> None:
    labels = a_map()
    photo = np.repeat((labels > 0).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
    augment = [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
    train = Train(short=80, scale=(1.0, 1.0), crop=64, augment=augment)
    seen = set()
    for epoch in range(12):
        image, maps = train(photo, [labels], (0, epoch, 0))
        assert image.shape == (64, 64, 3)
        assert maps[0].dtype == np.uint16
        differ = (image[:, :, 0] > 127) != (maps[0] > 0)
        assert differ.mean() < 0.01
        seen.add(maps[0].tobytes())
    assert len(seen) > 8


@pytest.mark.parametrize("short", [20, 80, 57])
def test_masks_are_sampled_at_the_centres_of_pixels(short: int) -> None:
    # A mask moved by half a pixel would have its centre of mass there; the resize must not move it.
    labels = np.zeros((40, 40), np.uint16)
    labels[8:32, 8:32] = 1
    _, maps = Eval(short=short)(np.zeros((40, 40, 3), np.uint8), [labels])
    y, x = np.nonzero(maps[0])
    scale = short / 40
    assert abs((y.mean() + 0.5) / scale - 20) <= 0.25
    assert abs((x.mean() + 0.5) / scale - 20) <= 0.25


def test_halving_averages_the_photo() -> None:
    image, _ = Eval(short=20)(PHOTO, [])
    blocks = PHOTO.reshape(20, 2, 30, 2, 3).astype(float).mean(axis=(1, 3))
    assert abs(image - blocks).max() <= 0.5


@pytest.mark.parametrize("maps", [[], [a_map()], [a_map(), a_map() * 0]])
def test_any_number_of_maps(maps: list) -> None:
    for result in (Eval(short=20)(PHOTO, maps)[1], Train(short=20, crop=16)(PHOTO, maps, (0, 0, 0))[1]):
        assert isinstance(result, list)
        assert len(result) == len(maps)


def test_a_seed_is_all_that_an_augmentation_depends_on() -> None:
    def train() -> Train:
        return Train(scale=(0.5, 2.0), crop=30, augment=[albumentations.ColorJitter(), albumentations.HorizontalFlip()])

    one, two = train(), train()
    two(PHOTO, [], (9, 9, 9))
    for seed in ((0, 0, 0), (0, 1, 0), (1, 0, 0)):
        first, second = one(PHOTO, [a_map()], seed), two(PHOTO, [a_map()], seed)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1][0], second[1][0])
    images = {one(PHOTO, [], seed)[0].tobytes() for seed in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))}
    assert len(images) == 4


def test_jitter_stays_within_its_range_and_the_crop_within_its_side() -> None:
    train = Train(scale=(0.5, 2.0))
    heights = [train(PHOTO, [], (0, 0, index))[0].shape[0] for index in range(100)]
    assert 20 <= min(heights) < 26
    assert 66 < max(heights) <= 80
    image, _ = Train(crop=50)(PHOTO, [], (0, 0, 0))
    assert image.shape == (40, 50, 3)


def test_albumentations_does_not_ask_for_its_newest_version() -> None:
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
    assert {KeepRatio(None, None).p, Crop(3).p} == {1.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Eval(short=0), r"transforms.eval.short is a number of pixels or null, found 0"),
        (lambda: Train(crop=-1), r"transforms.train.crop"),
        (lambda: Eval(short=800, long=400), r"long=400 and short=800"),
        (lambda: Train(scale=(2.0, 1.0)), r"transforms.train.scale is \[lowest, highest\]"),
    ],
)
def test_settings_out_of_range(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
