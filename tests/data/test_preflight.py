"""Every fault of the zoo is found as what it is, and real data raise no alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.zoo import FAULTS, Fault, Folder, good
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.preflight import photos
from maskbench.data.preflight import survey as whole
from maskbench.data.preflight.kinds import KINDS
from maskbench.data.preflight.layout import Layout, Split
from maskbench.data.preflight.survey import Survey, survey
from maskbench.errors import DataError


def layout(folder: Folder) -> Layout:
    splits = [Split("train", "annotations/instances_train.json", "images")]
    if folder.tune_annotations:
        splits.append(Split("tune", folder.tune_annotations, "images"))
    splits.append(Split("test", "annotations/instances_test.json", "images"))
    return Layout(folder.root, tuple(splits), folder.semantic, folder.short, None, folder.max_instances)


def read_strictly(folder: Folder) -> None:
    """As training does: records, categories, then every photo with its masks."""
    data = CocoDataModule(
        folder.root,
        test_annotations="annotations/instances_test.json",
        tune_annotations=folder.tune_annotations,
        train_semantic=folder.semantic,
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
        "photos": 6,
        "bare": 0,
        "objects": 12,
        "crowds": 1,
        "classes": {"disc": 6, "star": 6},
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


def test_the_zoo_has_every_kind() -> None:
    assert {fault.kind for fault in FAULTS} == set(KINDS)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
