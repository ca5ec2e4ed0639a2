"""The page of a preflight: one file, with all that was found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from browser import measured, needed
from data.zoo import FAULTS, good
from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.survey import survey
from maskbench.runtime.preflight_page import EACH, MEANINGS, verdict, write

TOGETHER = (
    "corners_in_the_wrong_order",
    "an_object_annotated_twice",
    "a_copy_of_a_training_photo_in_the_test",
    "a_photo_that_no_record_names",
    "names_that_differ_in_case",
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Of a folder with several faults, one of which has a name that is no text for a page."""
    folder = good(tmp_path / "a <b>set</b>")
    for fault in FAULTS:
        if fault.name in TOGETHER:
            fault.break_(folder)
    for image in folder.test["images"][1:]:
        (folder.root / "images" / image["file_name"]).rename(folder.root / "images" / f"<i>{image['file_name']}")
        image["file_name"] = f"<i>{image['file_name']}"
        image["height"] += 1
    folder.test["annotations"] = folder.test["annotations"][:3]
    folder.write()
    splits = [Split(name, f"annotations/instances_{name}.json", "images") for name in ("train", "test")]
    return write(survey(Layout(folder.root, tuple(splits))), tmp_path / "out")


def test_it_holds_everything_in_itself(page: Path) -> None:
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)
    assert "<b>" not in text
    assert "<i>" not in text
    for kind in ("polygon-crosses", "object-twice", "leak-copy", "photo-unnamed", "category-alike", "photo-size"):
        assert f"<code>{kind} × " in text
    for meaning in MEANINGS.values():
        assert meaning in text
    assert len(text) < 300_000


def test_it_shows_the_first_of_a_kind_as_pictures(page: Path) -> None:
    articles = dict(re.findall(r"<code>([\w-]+) × .*?</code>(.*?)</article>", page.read_text(), re.DOTALL))
    assert articles["photo-size"].count("<img") == 2 <= EACH
    assert articles["leak-copy"].count("<img") == 2
    assert articles["category-alike"].count("<img") == 0


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((2, 1, 0), "Not fit for a training as it is: 2 errors, 1 warning and no notes."),
        ((0, 1, 1), "Fit for a training, with 1 warning to look at first and 1 note."),
        ((0, 0, 5), "Fit for a training: no errors, no warnings and 5 notes."),
    ],
)
def test_the_verdict_is_a_sentence(counts: tuple[int, int, int], said: str) -> None:
    assert verdict(dict(zip(("error", "warning", "note"), counts, strict=True))) == said


@pytest.mark.slow
@needed
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Path, width: int, tmp_path: Path) -> None:
    seen = measured(page, width, tmp_path)
    assert (seen["window"], seen["wide"], seen["lost"]) == (width, [], 0)
    assert seen["page"] <= width
