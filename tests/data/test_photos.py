from __future__ import annotations

import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskbench.data.photos import read_photo
from maskbench.data.preflight import kinds
from maskbench.data.preflight.photos import look
from maskbench.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str = "photo.png", **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_rgb_is_as_stored(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_photo(saved(tmp_path, Image.fromarray(RGB))), RGB)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "PA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RGB).convert("P" if mode == "PA" else mode)
    name = "photo.tif" if mode == "PA" else "photo.png"
    photo = read_photo(saved(tmp_path, image.convert(mode), name))
    assert photo.shape == (6, 9, 3)
    assert photo.flags.writeable
    np.testing.assert_array_equal(photo, np.array(image.convert("RGB")))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    clear = np.dstack([RGB, np.zeros((6, 9), np.uint8)])
    np.testing.assert_array_equal(read_photo(saved(tmp_path, Image.fromarray(clear))), RGB)


def test_a_palette_with_transparency_gives_no_warning(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("P")
    path = saved(tmp_path, image, transparency=bytes([0, 128, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_photo(path), np.array(image.convert("RGB")))


def test_cmyk(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert abs(read_photo(saved(tmp_path, red, "photo.jpg"))[8, 8].astype(int) - [255, 0, 0]).max() < 12


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 65535, 32896]], dtype=np.uint16)
    for name in ("photo.png", "photo.tif"):
        assert read_photo(saved(tmp_path, Image.fromarray(grey), name))[0, :, 0].tolist() == [0, 1, 255, 128]


def test_sixteen_bits_are_scaled_alike_where_they_are_looked_at(tmp_path: Path) -> None:
    grey = np.tile(np.array([20 * 257, 20 * 257 + 200], np.uint16), (6, 5))
    path = saved(tmp_path, Image.fromarray(grey))
    assert set(read_photo(path).ravel().tolist()) == {20, 21}
    assert [kind for kind, _ in look(path).faults] == [kinds.PHOTO_16BIT]


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["photo.png", "photo.tif"])
def test_an_exif_tag_turns_nothing(orientation: int, name: str, tmp_path: Path) -> None:
    """Not even where PIL turns what it loads."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(RGB), name, exif=exif)
    np.testing.assert_array_equal(read_photo(path), RGB)
    found = look(path)
    assert (found.size, found.turned, found.faults) == ((6, 9), orientation, [])
    grey = np.arange(54, dtype=np.uint16).reshape(6, 9) * 257
    path = saved(tmp_path, Image.fromarray(grey), name, exif=exif)
    np.testing.assert_array_equal(read_photo(path)[..., 0], grey // 257)


def test_photos_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"gone.png: no such image"):
        read_photo(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text.png: is no image"):
        read_photo(tmp_path / "text.png")
    path = saved(tmp_path, Image.fromarray(np.tile(RGB, (50, 50, 1))), "cut.jpg")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"cut.jpg: is broken"):
        read_photo(path)
    path = saved(tmp_path, Image.fromarray(np.tile(RGB, (50, 50, 1))), "wrong.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"wrong.png: is broken"):
        read_photo(path)
    floats = Image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
    with pytest.raises(DataError, match=r"float.tif: has pixels of mode F from 0.0 to 1.0"):
        read_photo(saved(tmp_path, floats, "float.tif"))
    whole = saved(tmp_path, Image.fromarray(RGB), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    np.testing.assert_array_equal(read_photo(whole), RGB)  # PIL only warns up to twice its limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"bomb.png: is too large"):
        read_photo(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # which some programs set for all
    monkeypatch.setattr("maskbench.data.photos.LARGEST_PHOTO", 53)
    with pytest.raises(DataError, match=r"bomb.png: is too large \(9 x 6 pixels\), a photo may have 53 pixels; cut"):
        read_photo(whole)


def test_a_huge_photo_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    """20,000 × 20,000 pixels of nothing are 400 kB of file and 1.2 GB of memory."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(60_001))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"huge.png: is too large .* 178956970 pixels; cut it into tiles"):
        read_photo(tmp_path / "huge.png")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_what_another_program_would_be_started_for_is_no_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", started)
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n")
    with pytest.raises(DataError, match=r"photo.png: is no image"):
        read_photo(path)
    assert [kind for kind, _ in look(path).faults] == [kinds.PHOTO_NONE]
