"""Image files from anywhere: what is opened, and a photo's pixels.

The pixels are those that are stored, as users of pycocotools see them: an EXIF tag turns no photo, since the json's
width and height, and the masks with them, belong to the unturned one.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from maskbench.errors import DataError, MaskbenchError

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
    return Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])


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
                return _as_rgb(image, path)
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
    scaled = (grey.astype(np.uint32) + 128) // 257
    return np.repeat(scaled.astype(np.uint8)[:, :, None], 3, axis=2)
