"""The parts of a preflight: what can be computed by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.zoo import box, good, pixels, runs
from maskbench.data.preflight import kinds
from maskbench.data.preflight.findings import EXAMPLES, LONG, Findings, Kind, Sight
from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.likeness import alike, likeness
from maskbench.data.preflight.masks import draw, mask_faults
from maskbench.data.preflight.outlines import crosses, enclosed, length
from maskbench.data.preflight.photos import look
from maskbench.data.preflight.pictures import MARKED, NOTHING, SIDE, pictures
from maskbench.data.preflight.survey import survey

# Outlines -------------------------------------------------------------------------------------------------------------


def points(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=float).reshape(-1, 2)


def test_a_rectangle_encloses_its_area() -> None:
    rectangle = points(*box(5, 4, 25, 16))
    assert (enclosed(rectangle), length(rectangle), crosses(rectangle)) == (240, 64, False)
    assert enclosed(rectangle[::-1].copy() + 1e6) == 240


def test_loops_that_turn_apart_cancel_out() -> None:
    bow_tie = points(0, 0, 10, 10, 10, 0, 0, 10)
    assert (enclosed(bow_tie), crosses(bow_tie)) == (0, True)


@pytest.mark.parametrize(
    "outline",
    [
        points(0, 0, 4, 0, 8, 0, 8, 8, 0, 8),  # a point in the middle of an edge
        points(0, 0, 4, 0, 4, 4, 8, 4, 8, 8, 4, 8, 4, 4, 0, 4),  # two squares that touch in a corner
        points(0, 0, 8, 0, 8, 8, 4, 0, 0, 8),  # a corner that touches an edge
        points(0, 0, 8, 0, 0, 0),  # there and back
        points(3, 3, 3, 3, 3, 3),
    ],
)
def test_what_touches_itself_crosses_nothing(outline: np.ndarray) -> None:
    assert not crosses(outline)


def test_a_traced_outline_of_thousands_of_points_is_looked_at() -> None:
    mask = np.zeros((1500, 1500), np.uint8)
    cv2.circle(mask, (700, 700), 500, 1, -1)
    cv2.rectangle(mask, (100, 100), (400, 1400), 1, -1)
    (outline,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    traced = outline[:, 0].astype(float)
    assert len(traced) > 4000
    assert not crosses(traced)
    traced[[1000, 3000]] = traced[[3000, 1000]]
    assert crosses(traced)


# Masks ----------------------------------------------------------------------------------------------------------------


def test_polygons_and_run_lengths_of_one_mask_are_one_mask() -> None:
    outlined = draw({"segmentation": [box(5, 4, 25, 16)]}, (40, 60), [])
    painted = draw({"segmentation": runs(5, 4, 25, 16)}, (40, 60), [])
    assert outlined is not None
    assert painted is not None
    assert (outlined.area, outlined.box, outlined.counts) == (240, (5, 4, 25, 16), painted.counts)
    compressed = draw({"segmentation": {"size": [40, 60], "counts": painted.counts.decode()}}, (40, 60), [])
    assert compressed == painted


def test_a_polygon_may_reach_a_pixel_beyond_its_photo() -> None:
    for reach, told in ((1.0, []), (1.5, [kinds.POLYGON_BEYOND])):
        mask = draw({"segmentation": [box(50, 4, 60 + reach, 16)]}, (40, 60), [])
        assert mask is not None
        assert [kind for kind, _ in mask_faults(mask, (40, 60))] == told


# Photos ---------------------------------------------------------------------------------------------------------------


def test_a_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    load = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: sizes.append(self.size) or load(self, mode))
    Image.fromarray(pixels(1, (800, 1200))).save(tmp_path / "photo.jpg")
    found = look(tmp_path / "photo.jpg")
    assert (found.size, found.faults) == ((800, 1200), [])
    assert sizes == [(150, 100)]


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        Image.fromarray(pixels(seed)).save(tmp_path / name)
    first, second, third = (look(tmp_path / name).digest for name in ("a.png", "b.png", "c.png"))
    assert first == second != third


# Likeness -------------------------------------------------------------------------------------------------------------


def test_photos_that_look_alike_are_found_in_order_and_once() -> None:
    photos = [cv2.cvtColor(pixels(seed, (240, 320)), cv2.COLOR_RGB2GRAY) for seed in range(60)]
    noisy = np.clip(photos[7] + np.random.default_rng(0).normal(0, 6, photos[7].shape), 0, 255).astype(np.uint8)
    photos += [noisy, cv2.resize(photos[12], (100, 75), interpolation=cv2.INTER_AREA), (photos[3] // 2)]
    photos += [np.full((50, 50), 128, np.uint8)] * 2  # which show nothing to compare
    prints = [likeness(photo) for photo in photos]
    hashes, thumbnails = (
        np.array([each.hash for each in prints], np.uint64),
        np.stack([each.thumbnail for each in prints]),
    )
    pairs = [pair for each in alike(hashes, thumbnails) for pair in zip(*each, strict=True)]
    assert sorted((first, second) for first, second, _ in pairs) == [(3, 62), (7, 60), (12, 61)]
    for first, second, correlation in pairs:
        expected = np.corrcoef(thumbnails[first].ravel(), thumbnails[second].ravel())[0, 1]
        assert correlation == pytest.approx(expected)
        assert correlation > 0.985


@pytest.mark.parametrize(("bits", "found"), [(range(0, 56, 8), True), (range(0, 64, 8), False)])
def test_hashes_may_differ_in_seven_bits(bits: range, found: bool) -> None:
    """Each in a band of its own, the worst case."""
    thumbnail = likeness(cv2.cvtColor(pixels(1), cv2.COLOR_RGB2GRAY)).thumbnail
    hashes = np.array([0, sum(2**bit for bit in bits)], np.uint64)
    assert sum(len(each.first) for each in alike(hashes, np.stack([thumbnail] * 2))) == found


# Findings -------------------------------------------------------------------------------------------------------------


def test_findings_are_counted_and_the_first_are_kept() -> None:
    findings = Findings()
    for place in range(1000):
        findings.add(kinds.PHOTO_GREY.at("a.png", f"image {place}", "x" * 10_000))
    findings.add(kinds.PHOTO_BLANK.at("\udcff.png", "", "has \ud800"))
    findings.add(kinds.PHOTO_EMPTY.at("b.png", "image 7", "has no bytes"))
    groups = findings.groups()
    assert [(group.kind.severity, group.count) for group in groups] == [("error", 1), ("warning", 1), ("note", 1000)]
    assert [each.record for each in groups[2].examples] == [f"image {place}" for place in range(EXAMPLES)]
    assert max(len(each.found) for each in groups[2].examples) <= LONG + 2
    assert str(groups[1].examples[0]) == "?.png: has ?"
    assert str(groups[0].examples[0]) == "b.png (image 7): has no bytes"


def test_kinds_say_what_to_do() -> None:
    for kind in (each for each in vars(kinds).values() if isinstance(each, Kind)):
        assert kind.title[0] == kind.title[0].upper() or kind.title.startswith("`")
        assert not kind.title.endswith(".")
        assert not kind.remedy.endswith(".")


def test_what_is_found_does_not_depend_on_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = good(tmp_path / "set")
    for image in folder.train["images"]:
        image["height"] += 1
    folder.write()
    plan = Layout(folder.root, (Split("train", "annotations/instances_train.json", "images"),))
    found = []
    for cores in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found.append(survey(plan).as_dict())
    assert found[0] == found[1]


# Pictures -------------------------------------------------------------------------------------------------------------


def seen(sight: Sight) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in pictures(sight)]


def test_an_object_is_shown_from_near_with_its_outline(tmp_path: Path) -> None:
    Image.new("RGB", (600, 400), (10, 10, 10)).save(tmp_path / "dark.png")
    (picture,) = seen(Sight((tmp_path / "dark.png",), ({"segmentation": [box(300, 200, 340, 230)]},)))
    # 20 pixels around 40 x 30, enlarged to the side of a picture
    assert picture.shape == (round(70 * SIDE / 80), SIDE, 3)
    at = np.abs(picture - np.array(MARKED)).sum(axis=2) < 120
    rows, columns = np.flatnonzero(at.any(axis=1)), np.flatnonzero(at.any(axis=0))
    assert [rows[0], rows[-1], columns[0], columns[-1]] == pytest.approx([60, 150, 60, 180], abs=2)


def test_what_lies_beside_its_photo_is_shown_there(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "black.png")
    (picture,) = seen(Sight((tmp_path / "black.png",), ({"segmentation": [box(65, 10, 75, 20)]},)))
    assert np.abs(picture[2, -2] - NOTHING).max() < 9


@pytest.mark.parametrize("segmentation", [runs(5, 4, 25, 16), [[math.nan] * 6], {"counts": []}, "mask.png", None])
def test_a_photo_is_shown_whatever_is_annotated(tmp_path: Path, segmentation: object) -> None:
    Image.fromarray(pixels(1)).save(tmp_path / "photo.png")
    annotation = {"segmentation": segmentation, "bbox": [1, 2, 3]}
    assert len(pictures(Sight((tmp_path / "photo.png",), (annotation,)))) == 1


def test_two_photos_are_shown_side_by_side_and_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    Image.fromarray(pixels(1, (500, 300))).save(tmp_path / "photo.png")
    (tmp_path / "text.png").write_text("no image")
    found = seen(Sight((tmp_path / "photo.png", tmp_path / "text.png", tmp_path / "photo.png")))
    assert [picture.shape for picture in found] == [(SIDE, 144, 3)] * 2
