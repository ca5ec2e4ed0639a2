"""One image file looked at: whether it can be read, what its pixels are, and what it looks like.

What `read_photo` refuses, which training reads with, is an error here. No more is decoded than it takes: JPEGs at an
eighth of their size, and nothing of a file that says it has more than `MOST_DECODED` pixels.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from maskbench.data.photos import UPRIGHT, as_stored, eight_bits, opened, stored_size
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import Kind
from maskbench.data.preflight.likeness import Likeness, likeness

MOST_DECODED = 2**26
"""Pixels of a photo that are decoded: 200 MB of RGB."""

LARGE = 2**24
"""Pixels from which photos are decoded one at a time, whatever the number of threads."""

REDUCED = 64
"""Pixels of the short side that a JPEG is decoded to at the least: enough for what it looks like."""

DARK = 4096
"""Values of 16 bit photos that use 12 of them stay below."""

STACKS = ("TIFF", "GIF", "WEBP", "PNG")
"""Formats that may hold several frames, where that is no second picture for other ends, as in a telephone's JPEG."""

MODES = {
    kinds.PHOTO_GREY: ("L", "1", "LA", "La"),
    kinds.PHOTO_PALETTE: ("P", "PA"),
    kinds.PHOTO_CMYK: ("CMYK",),
}
"""PIL's words for pixels that become RGB otherwise than by copying."""

_large = threading.Lock()


@dataclass(frozen=True)
class Look:
    """What a file is.

    Args:
        size: height and width as stored; None where that can't be told.
        turned: its EXIF orientation; upright where it has none.
        digest: of its bytes.
        likeness: what it looks like; None where it can't be decoded, or has one colour alone.
        faults: what is wrong with it, each with what was found.
    """

    size: tuple[int, int] | None
    turned: int
    digest: bytes
    likeness: Likeness | None
    faults: list[tuple[Kind, str]]


def look(path: Path) -> Look:
    """Read a regular file as an image; whatever is wrong with it is a fault and no error.

    Decoders warn of harmless things: whoever calls this ignores warnings, once for all of its threads.
    """
    view = _View()
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                view.tell(kinds.PHOTO_EMPTY, "has no bytes")
                return view.seen()
            view.digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            with opened(file) as image:
                view.read(image)
    except UnidentifiedImageError:
        view.tell(kinds.PHOTO_NONE, "is no image that can be read")
    except Image.DecompressionBombError as error:
        view.tell(kinds.PHOTO_BOMB, str(error))
    except Exception as error:  # of decoders, which raise whatever a broken file makes them stumble over
        view.tell(kinds.PHOTO_BROKEN, f"{type(error).__name__}: {error}")
    return view.seen()


class _View:
    """What is known of a file so far."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.turned = UPRIGHT
        self.digest = b""
        self.likeness: Likeness | None = None
        self.faults: list[tuple[Kind, str]] = []

    def tell(self, kind: Kind, found: str) -> None:
        self.faults.append((kind, found))

    def seen(self) -> Look:
        return Look(self.size, self.turned, self.digest, self.likeness, self.faults)

    def read(self, image: Image.Image) -> None:
        """From what the head says to the pixels."""
        self.size = height, width = stored_size(image)
        mode = image.mode
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (REDUCED, REDUCED))
        # of a progressive JPEG all coefficients are kept, however small it is decoded
        decoded = height * width if "progressive" in image.info else image.height * image.width
        if decoded > MOST_DECODED:
            self.tell(kinds.PHOTO_LARGE, f"has {height} x {width} pixels (height x width)")
            return
        with _large if decoded > LARGE else nullcontext():
            pixels, self.turned = as_stored(image)
            self._values(pixels, mode)
        with suppress(Exception):  # frames behind the first one, which nobody reads, break no photo
            if image.format in STACKS and (frames := getattr(image, "n_frames", 1)) > 1:
                self.tell(kinds.PHOTO_FRAMES, f"has {frames} frames")

    def _values(self, image: Image.Image, mode: str) -> None:
        """What kind of numbers the pixels are, and what they show."""
        if mode.startswith(("I", "F")):
            grey = self._deep(np.asarray(image), mode)
        else:
            for kind, modes in MODES.items():
                if mode in modes:
                    self.tell(kind, f"is of mode {mode}")
            self._alpha(image)
            grey = np.asarray(image.convert("L"))
        if grey is not None and int(grey.min()) == int(grey.max()):
            self.tell(kinds.PHOTO_BLANK, "has one colour alone")
        elif grey is not None:
            self.likeness = likeness(grey)

    def _deep(self, pixels: np.ndarray, mode: str) -> np.ndarray | None:
        """More than eight bits as the grey that `read_photo` makes of them; None where it makes none.

        Dark ones are brightened, as all would look alike.
        """
        low, high = pixels.min(), pixels.max()
        if mode.startswith("F") or low < 0 or high > 65535:
            self.tell(kinds.PHOTO_DEPTH, f"has values of mode {mode} from {low} to {high}")
            return None
        dark = low < high < DARK
        self.tell(kinds.PHOTO_DARK if dark else kinds.PHOTO_16BIT, f"has values from {low} to {high}")
        return (pixels // 16).astype(np.uint8) if dark else eight_bits(pixels)

    def _alpha(self, image: Image.Image) -> None:
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
            if int(alpha.min()) < 255:
                self.tell(kinds.PHOTO_ALPHA, f"{100 * float((alpha < 255).mean()):.0f} % of its pixels are transparent")
