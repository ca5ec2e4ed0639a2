from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskbench.data.photos import read_photo
from maskbench.runtime.display import display, turned

NOISE = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_photos_are_turned_as_pillow_turns_them(orientation: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"photo.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(path, exif=exif)
    shown = display(path, read_photo(path))
    assert shown.orientation == orientation
    assert not shown.stretched
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert (turned(shown.photo, shown.orientation) == upright).all()


@pytest.mark.parametrize("orientation", [0, 9, 700])
def test_an_orientation_that_is_none_turns_nothing(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / "photo.jpg", exif=exif)
    assert display(tmp_path / "photo.jpg", NOISE).orientation == 1


def test_a_photo_of_12_bits_is_shown_bright_and_read_as_training_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    grey = np.linspace(0, 4095, 4000, dtype=np.uint16).reshape(40, 100)
    Image.fromarray(grey).save(path)
    photo = read_photo(path)
    shown = display(path, photo)
    assert photo.max() < 20
    assert shown.stretched
    assert shown.photo.min() == 0
    assert shown.photo.max() == 255
    assert abs(shown.photo.mean() - 127.5) < 2
    assert (np.diff(shown.photo[:, :, 0].ravel().astype(int)) >= 0).all()


def test_a_photo_of_16_bits_without_contrast_can_be_shown(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 700, np.uint16)).save(tmp_path / "photo.png")
    assert (display(tmp_path / "photo.png", read_photo(tmp_path / "photo.png")).photo == 0).all()
