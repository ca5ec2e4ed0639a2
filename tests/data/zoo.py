"""A little COCO folder without a fault, and a hundred ways to break it, each with what it is to be found as.

`python tests/data/zoo.py OUT` writes all of them as folders, to be looked at or tried with other tools.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

SIZE = (40, 60)
"""Height and width of the photos."""


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """A polygon around columns left … right−1 and rows top … bottom−1."""
    return [left, top, right, top, right, bottom, left, bottom]


def pixels(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photo that looks like no other one: coarse noise with fine noise on it."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(30, 220, (5, 7, 3)).astype(np.uint8)
    fine = draw.integers(-12, 13, (*size, 3))
    return np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC) + fine, 0, 255).astype(np.uint8)


@dataclass
class Folder:
    """The data set that is to be broken.

    Attributes:
        root: where its photos lie; the annotation files are written when a fault is through with it.
        train, test, tune: their contents; bytes are written as they stand, None not at all.
        tune_annotations: as `data.tune_annotations` has it.
        semantic: as `data.train_semantic` has it.
        max_instances, short: what the data are for.
        skip: whether `data.unreadable` is `skip`.
        most_decoded, most_objects: other limits than the package's, which would take large files.
    """

    root: Path
    train: Any = field(default_factory=dict)
    test: Any = field(default_factory=dict)
    tune: Any = None
    tune_annotations: str | None = None
    semantic: str | None = None
    max_instances: int = 100
    short: int | None = None
    skip: bool = False
    most_decoded: int | None = None
    most_objects: int | None = None

    def photo(self, split: str = "train", place: int = 0) -> Path:
        return self.root / "images" / getattr(self, split)["images"][place]["file_name"]

    @property
    def image(self) -> dict[str, Any]:
        return self.train["images"][0]

    @property
    def object(self) -> dict[str, Any]:
        """A polygon: columns 5 … 24 and rows 4 … 15 of the first photo."""
        return self.train["annotations"][0]

    @property
    def painted(self) -> dict[str, Any]:
        """Run lengths, on the same photo."""
        return self.train["annotations"][1]

    @property
    def crowd(self) -> dict[str, Any]:
        return self.train["annotations"][2]

    def store(self, image: Image.Image, name: str, place: int = 0, **options: Any) -> None:
        """Another file for a photo of train, under another name."""
        self.photo(place=place).unlink()
        self.train["images"][place]["file_name"] = name
        image.save(self.root / "images" / name, **options)

    def leave_bare(self, place: int = 0) -> None:
        """Remove what is annotated on a training photo."""
        image_id = self.train["images"][place]["id"]
        self.train["annotations"] = [each for each in self.train["annotations"] if each["image_id"] != image_id]

    def write(self) -> None:
        for split in ("train", "test", "tune"):
            content, path = getattr(self, split), self.root / "annotations" / f"instances_{split}.json"
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                path.write_text(json.dumps(content))


def runs(left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    """Uncompressed run lengths of a rectangle."""
    height, width = SIZE
    inner = [bottom - top, height - (bottom - top)] * (right - left - 1)
    counts = [left * height + top, *inner, bottom - top, (width - right) * height + height - bottom]
    return {"size": list(SIZE), "counts": counts}


def good(root: Path) -> Folder:
    """Four photos to train on and three to test, two classes, polygons, run lengths and a crowd."""
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    folder = Folder(root)
    for split, first, count in (("train", 1, 4), ("test", 11, 3)):
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": 1, "name": "disc"}, {"id": 2, "name": "star"}]
        for image_id in range(first, first + count):
            name = f"{split}_{image_id}.png"
            Image.fromarray(pixels(image_id)).save(root / "images" / name)
            height, width = SIZE
            content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
            shapes = [
                (1, 0, [box(5, 4, 25, 16)], [5, 4, 20, 12]),
                (2, 0, runs(30, 8, 50, 30), [30, 8, 20, 22]),
                (1, 1, runs(0, 34, 60, 40), [0, 34, 60, 6]),
            ]
            for category_id, crowd, segmentation, bbox in shapes[: 3 if image_id == first else 2]:
                content["annotations"].append(
                    {
                        "id": 100 * image_id + len(content["annotations"]),
                        "image_id": image_id,
                        "category_id": category_id,
                        "iscrowd": crowd,
                        "segmentation": segmentation,
                        "bbox": bbox,
                        "area": bbox[2] * bbox[3],
                    }
                )
        setattr(folder, split, content)
    return folder


@dataclass(frozen=True)
class Fault:
    """A way to break the folder.

    Args:
        break_: does it.
        kind, severity: what it is to be found as.
        also: kinds of errors and warnings that follow from it.
    """

    break_: Callable[[Folder], None]
    kind: str
    severity: str
    also: frozenset[str]

    @property
    def name(self) -> str:
        return self.break_.__name__


FAULTS: list[Fault] = []
HARMLESS: list[Callable[[Folder], None]] = []
"""What training reads as it is meant, and preflight has no word for."""


def fault(kind: str, severity: str, *also: str) -> Callable[[Callable[[Folder], None]], Callable[[Folder], None]]:
    def register(break_: Callable[[Folder], None]) -> Callable[[Folder], None]:
        FAULTS.append(Fault(break_, kind, severity, frozenset(also)))
        return break_

    return register


def harmless(change: Callable[[Folder], None]) -> Callable[[Folder], None]:
    HARMLESS.append(change)
    return change


# Annotation files -----------------------------------------------------------------------------------------------------


@fault("file-missing", "error")
def no_training_file(folder: Folder) -> None:
    folder.train = None


@fault("file-missing", "error")
def a_folder_in_the_place_of_a_file(folder: Folder) -> None:
    folder.train = None
    (folder.root / "annotations" / "instances_train.json").mkdir()


@fault("file-unreadable", "error")
def a_file_that_was_cut(folder: Folder) -> None:
    folder.test = json.dumps(folder.test).encode()[:500]


@fault("file-unreadable", "error")
def a_file_of_no_bytes(folder: Folder) -> None:
    folder.test = b""


@fault("file-unreadable", "error")
def a_file_that_nests_too_deeply(folder: Folder) -> None:
    folder.test = b"[" * 100_000


@fault("file-unreadable", "error")
def a_photo_in_the_place_of_a_file(folder: Folder) -> None:
    folder.test = folder.photo("test").read_bytes()


@fault("file-form", "error")
def a_list_of_results(folder: Folder) -> None:
    folder.test = [{"image_id": 11, "category_id": 1, "score": 0.5}]


@fault("file-form", "error", "image-unknown")
def a_file_without_images(folder: Folder) -> None:
    del folder.test["images"]


@fault("file-form", "error", "objects-none")
def annotations_by_id(folder: Folder) -> None:
    folder.test["annotations"] = {str(each["id"]): each for each in folder.test["annotations"]}


@fault("file-nothing", "error", "image-unknown")
def an_empty_list_of_images(folder: Folder) -> None:
    folder.test["images"] = []


@fault("file-nothing", "error", "category-unknown", "objects-none")
def an_empty_list_of_categories(folder: Folder) -> None:
    folder.test["categories"] = []


# Records --------------------------------------------------------------------------------------------------------------


@fault("record-form", "error")
def an_image_that_is_a_number(folder: Folder) -> None:
    folder.train["images"].append(7)


@fault("record-form", "error")
def an_annotation_that_is_null(folder: Folder) -> None:
    folder.train["annotations"].append(None)


@fault("field-missing", "error")
def an_image_without_file_name(folder: Folder) -> None:
    del folder.image["file_name"]


@fault("field-missing", "error")
def an_image_without_width(folder: Folder) -> None:
    del folder.image["width"]


@fault("field-missing", "error")
def an_annotation_without_image(folder: Folder) -> None:
    del folder.object["image_id"]


@fault("field-missing", "error")
def an_annotation_without_category(folder: Folder) -> None:
    del folder.object["category_id"]


@fault("field-missing", "error", "category-renamed")
def a_category_without_name(folder: Folder) -> None:
    del folder.test["categories"][0]["name"]


@fault("field-form", "error")
def a_height_in_words(folder: Folder) -> None:
    folder.image["height"] = "40"


@fault("field-form", "error")
def a_width_with_a_point(folder: Folder) -> None:
    folder.image["width"] = 60.0


@fault("field-form", "error", "category-renamed")
def a_category_named_by_a_number(folder: Folder) -> None:
    folder.test["categories"][0]["name"] = 3


@fault("size-form", "error")
def an_image_of_no_height(folder: Folder) -> None:
    folder.image["height"] = 0


@fault("size-form", "error")
def an_image_of_negative_width(folder: Folder) -> None:
    folder.image["width"] = -60


@fault("size-form", "error")
def an_image_of_more_pixels_than_can_be_counted(folder: Folder) -> None:
    folder.image["height"] = 10**12


@fault("size-form", "error")
def an_image_of_more_pixels_than_are_read(folder: Folder) -> None:
    folder.image.update(height=20_000, width=20_000)


# Ids ------------------------------------------------------------------------------------------------------------------


@fault("id-missing", "error", "image-unknown")
def an_image_without_id(folder: Folder) -> None:
    del folder.image["id"]


@fault("id-missing", "error")
def an_annotation_without_id(folder: Folder) -> None:
    del folder.object["id"]


@fault("id-form", "error")
def image_ids_as_text(folder: Folder) -> None:
    for each in folder.train["images"]:
        each["id"] = str(each["id"])
    for each in folder.train["annotations"]:
        each["image_id"] = str(each["image_id"])


@fault("id-form", "error")
def an_annotation_id_with_a_point(folder: Folder) -> None:
    folder.object["id"] = 5.0


@fault("id-form", "error")
def an_annotation_id_that_is_null(folder: Folder) -> None:
    folder.object["id"] = None


@fault("id-form", "error")
def an_annotation_id_that_is_true(folder: Folder) -> None:
    folder.object["id"] = True


@fault("id-form", "error")
def a_category_id_that_is_a_list(folder: Folder) -> None:
    folder.object["category_id"] = [1]


@fault("id-twice", "error", "image-unknown")
def two_images_of_one_id(folder: Folder) -> None:
    folder.train["images"][1]["id"] = folder.image["id"]


@fault("id-twice", "error")
def two_annotations_of_one_id(folder: Folder) -> None:
    folder.painted["id"] = folder.object["id"]


@fault("id-twice", "error", "category-unknown")
def two_categories_of_one_id(folder: Folder) -> None:
    for content in (folder.train, folder.test):
        content["categories"][1]["id"] = 1


@fault("id-range", "error")
def an_id_beyond_64_bits(folder: Folder) -> None:
    folder.object["id"] = 2**70


@fault("id-zero", "warning")
def an_annotation_with_the_id_0(folder: Folder) -> None:
    folder.object["id"] = 0


@fault("image-unknown", "error")
def an_annotation_of_an_image_that_is_not_listed(folder: Folder) -> None:
    folder.object["image_id"] = 77


@fault("category-unknown", "error")
def an_annotation_of_a_category_that_is_not_listed(folder: Folder) -> None:
    folder.object["category_id"] = 77


# Categories and classes -----------------------------------------------------------------------------------------------


@fault("category-renamed", "error")
def a_category_with_another_name_in_test(folder: Folder) -> None:
    folder.test["categories"][0]["name"] = "ring"


@fault("category-new", "error")
def a_category_of_test_alone(folder: Folder) -> None:
    folder.test["categories"].append({"id": 3, "name": "ring"})


@fault("category-twice", "error")
def one_name_for_two_categories(folder: Folder) -> None:
    for content in (folder.train, folder.test):
        content["categories"][1]["name"] = "disc"


@fault("category-alike", "warning")
def names_that_differ_in_case(folder: Folder) -> None:
    for content in (folder.train, folder.test):
        content["categories"][1]["name"] = "Disc "


@fault("category-lacking", "note")
def a_category_of_train_alone(folder: Folder) -> None:
    folder.train["categories"].append({"id": 3, "name": "ring"})


@fault("category-gaps", "note")
def category_ids_with_a_gap(folder: Folder) -> None:
    for content in (folder.train, folder.test):
        content["categories"].append({"id": 9, "name": "ring"})


@fault("class-unused", "note")
def a_class_without_objects(folder: Folder) -> None:
    for content in (folder.train, folder.test):
        content["categories"].append({"id": 3, "name": "ring"})


@fault("class-untrained", "warning")
def a_class_of_test_objects_alone(folder: Folder) -> None:
    for each in folder.train["annotations"]:
        each["category_id"] = 1


@fault("class-untested", "note")
def a_class_of_training_objects_alone(folder: Folder) -> None:
    for each in folder.test["annotations"]:
        each["category_id"] = 1


@fault("class-rare", "note")
def one_object_among_hundreds(folder: Folder) -> None:
    for each in folder.train["annotations"][3:]:
        each["category_id"] = 1
    for place in range(200):
        left, top = place % 20 * 2, place // 20 * 2
        own = {"segmentation": [box(left, top, left + 2, top + 2)], "bbox": [left, top, 2, 2], "area": 4}
        folder.train["annotations"].append({**folder.object, "id": 9000 + place, "image_id": 2 + place % 3, **own})
    folder.short = 400


# Names of photos ------------------------------------------------------------------------------------------------------


@fault("photo-missing", "error")
def a_photo_that_is_not_there(folder: Folder) -> None:
    folder.photo().unlink()


@fault("photo-missing", "error")
def a_link_that_leads_nowhere(folder: Folder) -> None:
    folder.photo().unlink()
    folder.photo().symlink_to("nowhere.png")


@fault("photo-missing", "error")
def another_image_folder(folder: Folder) -> None:
    (folder.root / "images").rename(folder.root / "photos")


@fault("name-climbs", "error")
def a_name_that_climbs_out(folder: Folder) -> None:
    folder.image["file_name"] = "../../../../../../../../etc/passwd"


@fault("name-climbs", "error")
def an_absolute_name_elsewhere(folder: Folder) -> None:
    folder.image["file_name"] = "/etc/passwd"


@fault("name-climbs", "error")
def a_device_that_never_ends(folder: Folder) -> None:
    folder.image["file_name"] = "/dev/zero"


@fault("name-absolute", "error")
def an_absolute_name_of_the_set(folder: Folder) -> None:
    folder.image["file_name"] = str(folder.photo())


@fault("photo-link", "note")
def a_photo_that_is_a_link(folder: Folder) -> None:
    (folder.root / "elsewhere").mkdir()
    shutil.move(folder.photo(), folder.root / "elsewhere" / "photo.png")
    folder.photo().symlink_to("../elsewhere/photo.png")


@fault("name-spelling", "error")
def a_name_in_capitals(folder: Folder) -> None:
    folder.image["file_name"] = folder.image["file_name"].upper()


@fault("name-form", "error")
def an_empty_name(folder: Folder) -> None:
    folder.image["file_name"] = ""


@fault("name-form", "error")
def a_name_with_a_zero_byte(folder: Folder) -> None:
    folder.image["file_name"] = "a\0.png"


@fault("name-form", "error")
def a_name_that_is_no_unicode(folder: Folder) -> None:
    folder.image["file_name"] = "\ud800.png"


@fault("name-spelling", "error")
def a_file_whose_name_has_a_backslash(folder: Folder) -> None:
    folder.photo().rename(folder.root / "images" / "a\\b.png")
    folder.image["file_name"] = "a\\b.png"


@fault("photo-missing", "error")
def a_name_of_a_thousand_letters(folder: Folder) -> None:
    folder.image["file_name"] = "a" * 1000


@fault("photo-missing", "error")
def a_name_of_a_thousand_accents(folder: Folder) -> None:
    folder.image["file_name"] = "é" * 1000


@fault("name-form", "error")
def a_name_of_a_folder(folder: Folder) -> None:
    folder.image["file_name"] = "."


@fault("name-form", "error")
def a_pipe(folder: Folder) -> None:
    folder.photo().unlink()
    os.mkfifo(folder.photo())


@fault("record-twice", "warning")
def a_photo_under_two_ids(folder: Folder) -> None:
    folder.train["images"].append({**folder.image, "id": 77, "file_name": "./" + folder.image["file_name"]})


@fault("photo-unnamed", "note")
def a_photo_that_no_record_names(folder: Folder) -> None:
    Image.fromarray(pixels(99)).save(folder.root / "images" / "extra.PNG")


# What photos are like -------------------------------------------------------------------------------------------------


@fault("photo-empty", "error")
def a_photo_of_no_bytes(folder: Folder) -> None:
    folder.photo().write_bytes(b"")


@fault("photo-none", "error")
def a_text_named_as_a_photo(folder: Folder) -> None:
    folder.photo().write_text("<html>404 Not Found</html>")


@fault("photo-none", "error")
def a_photo_in_a_format_that_is_not_read(folder: Folder) -> None:
    Image.fromarray(pixels(1)).save(folder.photo(), "ICO", sizes=[SIZE[::-1]])


@fault("photo-skipped", "warning")
def a_photo_that_was_cut_and_is_to_be_skipped(folder: Folder) -> None:
    folder.photo().write_bytes(folder.photo().read_bytes()[:-2000])
    folder.skip = True


@fault("photo-broken", "error")
def a_photo_of_the_test_that_was_cut(folder: Folder) -> None:
    folder.photo("test").write_bytes(folder.photo("test").read_bytes()[:-2000])
    folder.skip = True


@fault("photo-broken", "error")
def a_png_that_was_cut(folder: Folder) -> None:
    folder.photo().write_bytes(folder.photo().read_bytes()[:-2000])


@fault("photo-broken", "error")
def a_jpeg_that_was_cut(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)), "cut.jpg", quality=95)
    folder.photo().write_bytes(folder.photo().read_bytes()[:-1000])


@fault("photo-broken", "error")
def a_large_jpeg_that_was_cut(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1, (400, 600))), "cut.jpg", quality=95)
    folder.photo().write_bytes(folder.photo().read_bytes()[:-9000])
    folder.image.update(height=400, width=600)
    folder.leave_bare()


@fault("photo-broken", "error")
def a_png_with_a_wrong_byte(folder: Folder) -> None:
    content = bytearray(folder.photo().read_bytes())
    content[len(content) // 2] ^= 0xFF
    folder.photo().write_bytes(content)


@fault("photo-bomb", "error", "size-form")
def a_photo_of_400_megapixels(folder: Folder) -> None:
    """A PNG of a few bytes that says it is so large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    folder.photo().write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    folder.image.update(height=20_000, width=20_000)
    folder.leave_bare()


@fault("photo-large", "warning")
def photos_larger_than_are_looked_into(folder: Folder) -> None:
    folder.most_decoded = 2000


@fault("photo-size", "error")
def a_photo_that_was_made_smaller(folder: Folder) -> None:
    Image.fromarray(pixels(1)).resize((30, 20)).save(folder.photo())


@fault("photo-size", "error", "rle-size")
def height_and_width_exchanged(folder: Folder) -> None:
    folder.image.update(height=60, width=40)


@fault("photo-size", "error", "rle-size")
def a_record_of_the_photo_as_viewers_turn_it(folder: Folder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder.store(Image.fromarray(pixels(1)), "turned.jpg", exif=exif)
    folder.image.update(height=60, width=40)


@fault("photo-turned", "warning")
def a_photo_that_viewers_turn(folder: Folder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    folder.store(Image.fromarray(pixels(1)), "turned.jpg", exif=exif)


@fault("photo-grey", "note")
def a_grey_photo(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)).convert("L"), "grey.jpg")


@fault("photo-palette", "note")
def a_photo_with_a_palette(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)).convert("P"), "palette.png")


@fault("photo-cmyk", "warning")
def a_photo_in_cmyk(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)).convert("CMYK"), "cmyk.jpg")


@fault("photo-alpha", "warning")
def a_photo_with_transparent_pixels(folder: Folder) -> None:
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[:20] = 0
    folder.store(Image.fromarray(np.dstack([pixels(1), alpha])), "alpha.png")


@fault("photo-16bit", "note")
def a_photo_of_16_bits(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)[:, :, 0].astype(np.uint16) * 257), "deep.png")


@fault("photo-dark", "warning")
def a_photo_of_12_bits_in_16(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)[:, :, 0].astype(np.uint16) * 16), "dark.tif")


@fault("photo-depth", "error")
def a_photo_of_floats(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)[:, :, 0].astype(np.float32) / 255), "float.tif")


@fault("photo-frames", "warning")
def a_stack_of_slices(folder: Folder) -> None:
    first, *others = (Image.fromarray(pixels(seed)) for seed in (1, 2, 3))
    folder.store(first, "stack.tif", save_all=True, append_images=others)


@fault("photo-blank", "warning")
def a_black_photo(folder: Folder) -> None:
    Image.new("RGB", SIZE[::-1]).save(folder.photo())


# Masks ----------------------------------------------------------------------------------------------------------------


@fault("mask-missing", "error")
def an_object_without_segmentation(folder: Folder) -> None:
    del folder.object["segmentation"]


@fault("mask-missing", "error")
def a_box_and_no_mask(folder: Folder) -> None:
    folder.object["segmentation"] = []


@fault("mask-form", "error")
def a_segmentation_in_words(folder: Folder) -> None:
    folder.object["segmentation"] = "mask_1.png"


@fault("mask-form", "error")
def a_polygon_of_two_points(folder: Folder) -> None:
    folder.object["segmentation"] = [[5, 4, 25, 16]]


@fault("mask-form", "error")
def a_polygon_with_half_a_point(folder: Folder) -> None:
    folder.object["segmentation"][0].append(5)


@fault("mask-form", "error")
def a_polygon_that_is_not_in_a_list(folder: Folder) -> None:
    folder.object["segmentation"] = folder.object["segmentation"][0]


@fault("mask-form", "error")
def a_polygon_of_pairs(folder: Folder) -> None:
    folder.object["segmentation"] = [[[5, 4], [15, 4], [25, 4], [25, 16], [15, 16], [5, 16]]]


@fault("rle-size", "error")
def run_lengths_of_width_and_height(folder: Folder) -> None:
    folder.painted["segmentation"]["size"].reverse()


@fault("rle-size", "error")
def run_lengths_of_no_size(folder: Folder) -> None:
    del folder.painted["segmentation"]["size"]


@fault("mask-undecodable", "error")
def run_lengths_that_do_not_fill_the_photo(folder: Folder) -> None:
    folder.painted["segmentation"]["counts"].pop()


@fault("mask-undecodable", "error")
def a_negative_run_length(folder: Folder) -> None:
    folder.painted["segmentation"]["counts"][:2] = [-5, folder.painted["segmentation"]["counts"][0] + 27]


@fault("mask-undecodable", "error")
def a_string_that_is_no_run_lengths(folder: Folder) -> None:
    folder.painted["segmentation"]["counts"] = "no run lengths"


@fault("mask-undecodable", "error")
def a_string_that_never_ends_its_number(folder: Folder) -> None:
    folder.painted["segmentation"]["counts"] = "o" * 1_000_000


@fault("coordinate-form", "error")
def a_coordinate_that_is_no_number(folder: Folder) -> None:
    folder.object["segmentation"][0][2] = float("nan")


@fault("coordinate-form", "error")
def an_infinite_coordinate(folder: Folder) -> None:
    folder.object["segmentation"][0][2] = float("inf")


@fault("coordinate-form", "error")
def a_coordinate_in_words(folder: Folder) -> None:
    folder.object["segmentation"][0][2] = "far"


@fault("mask-undecodable", "error")
def a_coordinate_beyond_all_photos(folder: Folder) -> None:
    folder.object["segmentation"][0][2] = 1e9


@fault("mask-outside", "error")
def an_object_beside_its_photo(folder: Folder) -> None:
    folder.object["segmentation"] = [box(70, 4, 90, 16)]


@fault("mask-outside", "error")
def an_object_at_negative_coordinates(folder: Folder) -> None:
    folder.object["segmentation"] = [box(-30, -20, -5, -5)]


@fault("polygon-beyond", "warning")
def an_object_that_reaches_beyond_its_photo(folder: Folder) -> None:
    folder.object.update(segmentation=[box(-9, 4, 25, 16)], bbox=[0, 4, 25, 12], area=25 * 12)


@fault("mask-empty", "warning")
def a_sliver_between_pixels(folder: Folder) -> None:
    folder.object["segmentation"] = [[5.1, 4.1, 5.2, 4.1, 5.2, 4.2, 5.1, 4.2]]


@fault("mask-empty", "warning")
def run_lengths_without_a_pixel(folder: Folder) -> None:
    folder.painted["segmentation"]["counts"] = [SIZE[0] * SIZE[1]]


@fault("mask-pixel", "warning")
def an_object_of_one_pixel(folder: Folder) -> None:
    folder.painted.update(segmentation=runs(30, 8, 31, 9), bbox=[30, 8, 1, 1], area=1)


@fault("polygon-flat", "warning")
def a_polygon_that_is_a_line(folder: Folder) -> None:
    folder.object["segmentation"].append([5, 20, 15, 20, 25, 20])


@fault("polygon-flat", "warning")
def a_polygon_that_is_a_point(folder: Folder) -> None:
    folder.object["segmentation"].append([5, 20, 5, 20, 5, 20])


@fault("polygon-crosses", "warning")
def corners_in_the_wrong_order(folder: Folder) -> None:
    folder.object.update(segmentation=[[5, 4, 25, 16, 25, 4, 5, 16]], area=120)


@fault("polygon-crosses", "warning")
def an_outline_drawn_around_twice(folder: Folder) -> None:
    folder.object.update(
        segmentation=[[5, 4, 25, 4, 25, 20, 5, 20, 6, 3, 24, 3, 24, 19, 6, 19]], bbox=[5, 3, 20, 17], area=64
    )


@fault("box-form", "error")
def a_box_of_three_numbers(folder: Folder) -> None:
    folder.object["bbox"] = [5, 4, 20]


@fault("box-form", "error")
def a_box_of_negative_width(folder: Folder) -> None:
    folder.object["bbox"] = [25, 4, -20, 12]


@fault("box-form", "error")
def a_box_with_nan(folder: Folder) -> None:
    folder.object["bbox"][0] = float("nan")


@fault("box-off", "warning")
def a_box_elsewhere(folder: Folder) -> None:
    folder.object["bbox"] = [35, 20, 20, 12]


@fault("box-corners", "error", "box-off")
def boxes_of_two_corners(folder: Folder) -> None:
    for each in folder.train["annotations"]:
        left, top, width, height = each["bbox"]
        each["bbox"] = [left, top, left + width, top + height]


@fault("area-form", "error")
def an_area_in_words(folder: Folder) -> None:
    folder.object["area"] = "240"


@fault("area-form", "error")
def a_negative_area(folder: Folder) -> None:
    folder.object["area"] = -1


@fault("area-form", "error")
def an_area_that_is_no_number(folder: Folder) -> None:
    folder.object["area"] = float("nan")


@fault("area-off", "warning")
def the_area_of_another_size(folder: Folder) -> None:
    folder.object["area"] *= 4


@fault("crowd-form", "error")
def iscrowd_in_words(folder: Folder) -> None:
    folder.object["iscrowd"] = "0"


@fault("crowd-form", "error")
def iscrowd_that_counts(folder: Folder) -> None:
    folder.object["iscrowd"] = 3


@fault("crowd-polygons", "warning")
def a_crowd_drawn_as_a_polygon(folder: Folder) -> None:
    folder.object["iscrowd"] = 1


@fault("crowd-many", "warning", "class-untrained")
def painted_masks_as_cvat_exports_them(folder: Folder) -> None:
    for each in folder.train["annotations"]:
        each["iscrowd"] = int(isinstance(each["segmentation"], dict))


@fault("object-twice", "warning")
def an_object_annotated_twice(folder: Folder) -> None:
    folder.train["annotations"].append({**folder.object, "id": 9000})


@fault("object-twice", "warning")
def an_object_painted_and_outlined(folder: Folder) -> None:
    folder.train["annotations"].append({**folder.object, "id": 9000, "segmentation": runs(5, 4, 25, 16)})


@fault("object-classes", "warning")
def an_object_of_two_classes(folder: Folder) -> None:
    folder.train["annotations"].append({**folder.object, "id": 9000, "category_id": 2})


# Photos and their objects ---------------------------------------------------------------------------------------------


@fault("objects-none", "error", "class-untrained")
def nothing_to_learn(folder: Folder) -> None:
    folder.train["annotations"] = []


@fault("objects-none", "error", "crowd-many", "crowd-polygons", "class-untrained")
def nothing_but_crowds(folder: Folder) -> None:
    for each in folder.train["annotations"]:
        each["iscrowd"] = 1


@fault("objects-none", "error")
def nothing_to_measure(folder: Folder) -> None:
    folder.test["annotations"] = []


@fault("photo-bare", "note")
def a_photo_without_objects(folder: Folder) -> None:
    folder.leave_bare(1)


@fault("objects-beyond", "warning")
def more_objects_than_may_be_found(folder: Folder) -> None:
    folder.max_instances = 1


@fault("objects-untold", "error")
def more_objects_than_can_be_told_apart(folder: Folder) -> None:
    folder.most_objects = 1


@fault("objects-tiny", "warning")
def objects_too_small_for_the_network(folder: Folder) -> None:
    folder.short = 6


@fault("map-broken", "error")
def no_folder_of_maps(folder: Folder) -> None:
    folder.semantic = "stuff"


@fault("map-broken", "error")
def a_map_of_another_size(folder: Folder) -> None:
    folder.semantic = "stuff"
    (folder.root / "stuff").mkdir()
    Image.new("L", (10, 10)).save((folder.root / "stuff" / folder.image["file_name"]).with_suffix(".png"))


# Across splits --------------------------------------------------------------------------------------------------------


@fault("split-same", "error")
def tuning_on_the_test(folder: Folder) -> None:
    folder.tune_annotations = "annotations/instances_test.json"


@fault("leak-file", "error")
def a_training_photo_in_the_test(folder: Folder) -> None:
    folder.test["images"].append({**folder.image, "id": 77})


@fault("leak-file", "error")
def tuning_photos_among_the_training(folder: Folder) -> None:
    folder.tune_annotations = "annotations/instances_tune.json"
    folder.tune = {**folder.train, "images": folder.train["images"][:2], "annotations": folder.train["annotations"][:4]}


@fault("leak-copy", "error")
def a_copy_of_a_training_photo_in_the_test(folder: Folder) -> None:
    shutil.copy(folder.photo(), folder.photo("test"))


@fault("leak-near", "warning")
def a_training_photo_compressed_again_in_the_test(folder: Folder) -> None:
    folder.test["images"][0]["file_name"] = "again.jpg"
    Image.fromarray(pixels(1)).save(folder.root / "images" / "again.jpg", quality=40)


@fault("leak-near", "warning")
def a_training_photo_brighter_and_smaller_in_the_test(folder: Folder) -> None:
    brighter = np.clip(pixels(1) * 0.8 + 50, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).resize((45, 30)).save(folder.photo("test"))
    folder.test["images"][0].update(height=30, width=45)
    folder.test["annotations"] = [each for each in folder.test["annotations"] if each["image_id"] != 11]


@fault("photo-copy", "warning")
def a_training_photo_that_is_there_twice(folder: Folder) -> None:
    shutil.copy(folder.photo(), folder.photo(place=1))


@fault("photo-near", "note")
def a_training_photo_compressed_again(folder: Folder) -> None:
    folder.store(Image.fromarray(pixels(1)), "again.jpg", place=1, quality=40)


# What is read as it is meant ------------------------------------------------------------------------------------------


@harmless
def a_name_with_its_accent_apart(folder: Folder) -> None:
    folder.photo().rename(folder.root / "images" / unicodedata.normalize("NFC", "é.png"))
    folder.image["file_name"] = unicodedata.normalize("NFD", "é.png")


@harmless
def a_name_with_a_backslash(folder: Folder) -> None:
    (folder.root / "images" / "a").mkdir()
    folder.photo().rename(folder.root / "images" / "a" / "b.png")
    folder.image["file_name"] = "a\\b.png"


@harmless
def an_address_in_the_place_of_a_name(folder: Folder) -> None:
    (folder.root / "images" / "val2017").mkdir()
    folder.photo().rename(folder.root / "images" / "val2017" / "1.png")
    del folder.image["file_name"]
    folder.image["coco_url"] = "http://images.cocodataset.org/val2017/1.png"


def main() -> None:
    """Every fault as a folder below the one that is named."""
    out = Path(sys.argv[1])
    for each in FAULTS:
        folder = good(out / each.name)
        each.break_(folder)
        folder.write()
    print(json.dumps({"out": str(out), "folders": len(FAULTS)}))


if __name__ == "__main__":
    main()
