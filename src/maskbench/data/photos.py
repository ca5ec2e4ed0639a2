"""Image files from anywhere: what is opened, and a photo's pixels.

The pixels are those that are stored, as users of pycocotools see them: an EXIF tag turns no photo, since the json's
width and height, and the masks with them, belong to the unturned one. PIL turns TIFFs, and these are turned back.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from maskbench.errors import DataError, MaskbenchError

Size = tuple[int, int]
"""Height and width in pixels."""

FORMATS = (
    "PNG",
    "JPEG",
    "MPO",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "WEBP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "TGA",
    "SGI",
    "PCX",
    "FITS",
)
"""What a photo may be stored as, told by its content. Of what else PIL reads, some starts a program (EPS)."""
LARGEST_PHOTO = 178_956_970
"""Pixels that a photo may have, PIL's own limit: of so many 8-bit RGB takes half a gigabyte."""


def opened(source: str | Path | io.BytesIO | io.BufferedReader) -> Image.Image:
    """An image whose pixels are not read yet, of the formats above alone, whatever else PIL knows.

    Raises:
        OSError, UnidentifiedImageError, Image.DecompressionBombError: as PIL does.
    """
    Image.init()
    image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
    if isinstance(image, TiffImageFile):
        image.filename = ""  # a file that PIL knows by name it may map to memory, with the sides of the turned image
    return image


UPRIGHT = 1
"""EXIF's orientation of a photo that is stored as it is looked at."""
BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What undoes the turning of an orientation."""


def orientation(image: Image.Image) -> int:
    """EXIF's orientation of an image, 1 to 8; upright where there is none that can be read.

    Of a TIFF PIL knows it until the pixels are loaded; of a PNG it loads them to know, and what is wrong with these
    passes unseen here.
    """
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except MemoryError:
        raise
    except Exception:  # a broken tag is no broken photo, and PIL's readers raise what it leads them to
        return UPRIGHT
    return int(found) if found in range(1, 9) else UPRIGHT


def stored_size(image: Image.Image) -> Size:
    """Height and width of the pixels as they are stored, whether they are loaded or not."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2[ExifTags.Base.ImageLength], image.tag_v2[ExifTags.Base.ImageWidth]
    return image.height, image.width


def loaded(image: Image.Image) -> int:
    """Load the pixels of an opened file, which PIL turns if it is a TIFF; returns the orientation of those stored."""
    if not isinstance(image, TiffImageFile):
        image.load()
        return orientation(image)
    told = orientation(image)
    image.load()
    return told


def as_stored(image: Image.Image) -> tuple[Image.Image, int]:
    """The image of an opened file with its pixels loaded as they are stored, and their orientation."""
    told = loaded(image)
    return image.transpose(BACK[told]) if isinstance(image, TiffImageFile) and told in BACK else image, told


def read_photo(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """An image file as RGB bytes: its stored pixels, neither turned (EXIF) nor blended (alpha is dropped).

    Grey, palette, CMYK and alpha images are converted; 16 bits are scaled to 8.

    Raises:
        DataError: the file is missing, broken, too large to be one, or has pixels that are no 8 or 16 bit values.
    """
    try:
        # PIL warns of harmless things: large photos, transparency in a palette, odd EXIF.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with opened(path) as image:
                if image.width * image.height > LARGEST_PHOTO:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                return _as_rgb(as_stored(image)[0], path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such image; check data.root and the image folder against `file_name`") from None
    except UnidentifiedImageError:
        raise DataError(f"{path}: is no image that can be read; replace it or leave it out") from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path}: is too large ({error}), a photo may have {LARGEST_PHOTO} pixels; cut it into tiles"
        ) from error
    except (MaskbenchError, MemoryError):
        raise
    except Exception as error:  # PIL's readers raise what damaged bytes lead them to, of many kinds
        raise DataError(f"{path}: is broken ({error}); replace it or leave it out") from error


def _as_rgb(image: Image.Image, path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    if not image.mode.startswith(("I", "F")):
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise DataError(
            f"{path}: has pixels of mode {image.mode} from {grey.min()} to {grey.max()}, expected 8 or 16 bit values; "
            "convert it first"
        )
    return np.repeat(eight_bits(grey)[:, :, None], 3, axis=2)


def eight_bits(grey: Integer[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Values of 0 … 65535 as those of 0 … 255 that are nearest."""
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
