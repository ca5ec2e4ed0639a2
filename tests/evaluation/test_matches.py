from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from maskbench.errors import DataError
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.matches import Matches, read_matches, write_matches
from maskbench.evaluation.matching import match
from maskbench.evaluation.overlaps import overlaps
from maskbench.evaluation.precision_recall import curves
from maskbench.evaluation.strata import Stratum

SQUARE = (10, 10, 10, 10)


@pytest.fixture
def matches(tmp_path: Path, random_scene) -> Matches:
    content, results = random_scene(2)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return match(overlaps(GroundTruth(path), results))


def test_what_is_written_is_read(matches: Matches, tmp_path: Path):
    write_matches(tmp_path / "new" / "matches.npz", matches)
    read = read_matches(tmp_path / "new" / "matches.npz")
    for field in dataclasses.fields(Matches):
        before, after = getattr(matches, field.name), getattr(read, field.name)
        assert type(after) is type(before), field.name
        np.testing.assert_array_equal(after, before)
    assert (curves(read, [100]).precision == curves(matches, [100]).precision).all()


def test_few_bytes_that_would_be_gigabytes_are_refused(matches: Matches, tmp_path: Path, monkeypatch):
    path = tmp_path / "matches.npz"
    write_matches(path, matches)
    with np.load(path) as file:
        columns = dict(file)
    for shape in ([10**6, 10**6, 10], [-1, 2, 3]):
        np.savez_compressed(path, **(columns | {"right.shape": np.array(shape)}))
        with pytest.raises(DataError, match=rf"matches\.npz: .*right has \d+ bytes, which are not \({shape[0]}"):
            read_matches(path)
    for changed, told in (
        ({"score": columns["score"][1:]}, "is of shape"),
        ({"label": columns["label"] + 9}, "beyond"),
    ):
        np.savez_compressed(path, **(columns | changed))
        with pytest.raises(DataError, match=rf"matches\.npz: .*{told}"):
            read_matches(path)
    write_matches(path, matches)
    monkeypatch.setattr("maskbench.evaluation.matches.MOST", 1000)
    with pytest.raises(DataError, match="expected at most 1000"):
        read_matches(path)


def test_nothing_at_all_is_written_and_read(annotation_file, tmp_path: Path):
    write_matches(tmp_path / "matches.npz", match(overlaps(GroundTruth(annotation_file([])), [])))
    read = read_matches(tmp_path / "matches.npz")
    assert (read.images, read.right.shape, read.counted.shape) == ((7, 11), (0, 4, 10), (0, 4))


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_file_is_named(matches: Matches, tmp_path: Path, damage):
    path = tmp_path / "matches.npz"
    write_matches(path, matches)
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    with pytest.raises(DataError, match=r"matches\.npz: expected the matches of a run, .* writes it anew"):
        read_matches(path)


def test_another_npz_is_refused(tmp_path: Path):
    np.savez(tmp_path / "other.npz", images=np.arange(3))
    with pytest.raises(DataError, match="KeyError"):
        read_matches(tmp_path / "other.npz")


def test_a_stratum_counts_its_own_truths_and_blames_its_own_detections(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE), (7, 3, (30, 0, 8, 8))])
    results = [result(7, 3, SQUARE, 0.9), result(7, 3, (30, 0, 8, 8), 0.8), result(7, 3, (0, 30, 5, 5), 0.7)]
    found = overlaps(GroundTruth(path), results)
    first = np.array([True, False])
    strata = {"first": Stratum(first, np.array([True, True, True])), "kind": Stratum(first, np.zeros(3, dtype=bool))}
    matches = match(found, strata)
    # the second detection finds what the stratum does not count: no gain, no harm
    assert matches.right[:, :, 0].tolist() == [[True, True], [False, False], [False, False]]
    assert matches.wrong[:, :, 0].tolist() == [[False, False], [False, False], [True, False]]
    assert matches.counted.tolist() == [[True, True], [False, False]]


def test_a_truth_that_counts_is_taken_before_a_nearer_one_that_does_not(annotation_file, result):
    path = annotation_file([(7, 3, (10, 10, 10, 10)), (7, 3, (10, 10, 10, 12))])
    found = overlaps(GroundTruth(path), [result(7, 3, (10, 10, 10, 12))])
    for counts, right in (([True, False], True), ([False, True], True), ([False, False], False)):
        matches = match(found, {"some": Stratum(np.array(counts), np.array([True]))})
        assert matches.right[0, 0, 0] == right
        assert not matches.wrong[0, 0, 0]


def test_many_meetings_are_matched_as_one_by_one(matches: Matches, tmp_path: Path, monkeypatch):
    found = overlaps(GroundTruth(tmp_path / "annotations.json"), [])
    assert not found.meetings
    content = json.loads((tmp_path / "annotations.json").read_text())
    results = [
        {**{key: annotation[key] for key in ("image_id", "category_id", "segmentation")}, "score": 0.5}
        for annotation in content["annotations"]
    ]
    found = overlaps(GroundTruth(tmp_path / "annotations.json"), results)
    together = match(found)
    monkeypatch.setattr("maskbench.evaluation.matching.CHUNK", 1)
    alone = match(found)
    assert len(found.meetings) > 1
    assert (together.right == alone.right).all()
    assert (together.wrong == alone.wrong).all()
