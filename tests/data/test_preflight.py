"""Every fault of the zoo is found as what it is, and real data raise no alarm."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.zoo import FAULTS, HARMLESS, Fault, Folder, good
from junk import spoilt
from maskbench.data.coco import CocoFile
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.preflight import kinds, photos
from maskbench.data.preflight import survey as whole
from maskbench.data.preflight.findings import SEVERITIES, Kind
from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.survey import Survey, survey
from maskbench.data.shapes import draw as draw_shapes
from maskbench.errors import DataError


def layout(folder: Folder) -> Layout:
    splits = [Split("train", "annotations/instances_train.json", "images")]
    if folder.tune_annotations:
        splits.append(Split("tune", folder.tune_annotations, "images"))
    splits.append(Split("test", "annotations/instances_test.json", "images"))
    return Layout(folder.root, tuple(splits), folder.semantic, folder.short, None, folder.max_instances, folder.skip)


def read_strictly(folder: Folder) -> None:
    """As training does: records, categories, then every photo with its masks."""
    data = CocoDataModule(
        folder.root,
        test_annotations="annotations/instances_test.json",
        tune_annotations=folder.tune_annotations,
        train_semantic=folder.semantic,
        unreadable="skip" if folder.skip else "stop",
    )
    data.setup("fit")
    for split in ("train", "tune", "test"):
        dataset = data.dataset(split)
        for index in range(len(dataset)):
            dataset[index]


def kinds_of(found: Survey, *severities: str) -> dict[str, str]:
    """Severity by kind."""
    return {group.kind.name: group.kind.severity for group in found.groups if group.kind.severity in severities}


def test_the_good_folder_has_no_finding(tmp_path: Path) -> None:
    folder = good(tmp_path / "good")
    folder.write()
    found = survey(layout(folder))
    assert [str(each) for group in found.groups for each in group.examples] == []
    read_strictly(folder)
    assert found.as_dict()["splits"]["train"] == {
        "file": "annotations/instances_train.json",
        "photos": 4,
        "bare": 0,
        "objects": 8,
        "crowds": 1,
        "classes": {"disc": 4, "star": 4},
        "per_photo": [2.0] * 7,
        "sides": [15.5, 15.5, 15.5, 18.2, 21.0, 21.0, 21.0],
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_as_what_it_is(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = good(tmp_path / "broken")
    fault.break_(folder)
    if folder.most_decoded:
        monkeypatch.setattr(photos, "MOST_DECODED", folder.most_decoded)
    if folder.most_objects:
        monkeypatch.setattr(whole, "MOST", folder.most_objects)
    folder.write()
    found = survey(layout(folder))
    assert kinds_of(found, "error", "warning", "note")[fault.kind] == fault.severity
    told = kinds_of(found, "error", "warning")
    assert set(told) - {fault.kind} == fault.also, json.dumps(found.as_dict()["findings"], indent=1)
    if "name-form" not in told:  # nobody should read from a pipe
        refused = ""
        try:
            read_strictly(folder)
        except DataError as error:
            refused = str(error)
        assert not refused or "error" in told.values(), f"training says {refused}"


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_what_training_reads_has_no_finding(change: Callable[[Folder], None], tmp_path: Path) -> None:
    folder = good(tmp_path / "odd")
    change(folder)
    folder.write()
    assert survey(layout(folder)).as_dict()["findings"] == []
    read_strictly(folder)


def test_the_zoo_has_every_kind() -> None:
    assert {fault.kind for fault in FAULTS} == {kind.name for kind in vars(kinds).values() if isinstance(kind, Kind)}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60


@pytest.mark.filterwarnings("ignore")  # which training may give
def test_whatever_the_strict_reader_refuses_is_an_error(write: Any, content: dict[str, Any]) -> None:
    """Hundreds of files with one value replaced or gone: none of them is too much, none is taken for good."""
    root = write()
    path = root / "annotations" / "instances_train.json"
    plan = Layout(root, (Split("train", "annotations/instances_train.json", "images"),))
    draw, refused = random.Random(0), 0
    for _ in range(120):
        broken = spoilt(content, draw)
        path.write_text(json.dumps(broken))
        found = survey(plan)
        reason = ""
        try:
            file = CocoFile(path)
            for image_id in file.records:
                file.annotations(image_id)
        except DataError as error:
            reason = str(error)
        assert not reason or found.count("error"), f"{reason}\n{json.dumps(broken)}"
        refused += bool(reason)
    assert refused > 40


# No false alarm -------------------------------------------------------------------------------------------------------


def of_folder(root: Path, suffix: str = "", max_instances: int = 100) -> Layout:
    splits = [
        Split(name, f"annotations/instances_{stem}{suffix}.json", "images")
        for name, stem in (("train", "train"), ("test", "val"))
    ]
    return Layout(root, tuple(splits), max_instances=max_instances)


def test_drawn_shapes_raise_no_alarm() -> None:
    found = survey(of_folder(draw_shapes(images=40, val_images=10, size=64)))
    assert set(kinds_of(found, *SEVERITIES)) <= {"category-gaps", "photo-bare"}
    assert found.tallies["train"].photos == 40


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", "_all"])
def test_photographs_of_coco_raise_no_alarm(shared: Path, suffix: str) -> None:
    """But for what their source tells: photos without annotations, grey ones, and ids with gaps."""
    found = survey(of_folder(shared / "data" / "coco_slice", suffix))
    assert kinds_of(found, "error", "warning") == {}
    counts = {group.kind.name: group.count for group in found.groups}
    assert (counts.get("photo-grey", 0), counts["photo-bare"]) == ((2, 5) if suffix else (0, 3))
    assert counts.get("photo-unnamed", 0) == (0 if suffix else 465 - 173 - 137)


@pytest.mark.slow
def test_microscopy_raises_no_alarm(shared: Path) -> None:
    """But for what its source tells: grey photos, and more nuclei than COCO counts."""
    found = survey(of_folder(shared / "data" / "dsb2018"))
    assert set(kinds_of(found, *SEVERITIES)) == {"photo-grey", "objects-beyond"}
    assert max(found.tallies["train"].per_photo) == 375
