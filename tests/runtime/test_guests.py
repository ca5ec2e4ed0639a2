"""Other systems' predictions beside the runs of a study."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskbench.errors import ConfigError, DataError
from maskbench.evaluation.results import read_predictions
from maskbench.report import report
from maskbench.runtime.guests import invite
from maskbench.study.board import Board
from maskbench.study.findings import finding
from maskbench.study.leaderboard import marks, remarks
from trained import call, run

__all__ = ["run"]


@pytest.fixture
def study(run: Path, tmp_path: Path) -> Path:
    """A study of one run."""
    shutil.copytree(run, tmp_path / "study" / run.name)
    return tmp_path / "study"


@pytest.fixture
def predictions(run: Path, tmp_path: Path) -> Path:
    """What another system might hand over: the run's own, uncompressed, with `bbox` in the place of our `box`."""
    path = tmp_path / "theirs.json"
    results = read_predictions(run / "predictions.json.gz")
    path.write_text(json.dumps([{**result, "bbox": result["box"]} for result in results]))
    return path


def guest(predictions: Path, **more: Any) -> dict[str, Any]:
    return {"name": "yolo11n", "predictions": str(predictions), **more}


def test_equal_predictions_get_equal_numbers_and_a_badge(study: Path, predictions: Path, run: Path):
    invite(study, [guest(predictions, speed=95)])
    (found,) = Board.read(study).groups
    rows = {row["label"]: row for _, row in found.methods.iterrows()}
    for number in ("AP", "AP50", "APs", "APm", "box_AP", "boundary_AP"):
        assert rows["yolo11n"][number] == pytest.approx(rows["solov2-small"][number], nan_ok=True)
    assert (rows["yolo11n"]["paradigm"], rows["yolo11n"]["FPS"]) == ("guest", 95)
    own = marks(rows["solov2-small"]).strip("‡")  # whoever else is at this machine is no matter here
    assert (marks(rows["yolo11n"]), own) == ("§†", "")
    assert [mark for mark, _ in remarks(found)][:2] == ["§", "†"]
    assert found.timing != "as it was told"
    assert found.uncertainty is not None
    assert found.uncertainty.letters == {"solov2-small": "a"}, "a guest is in no comparison"
    assert found.uncertainty.intervals["yolo11n"] == found.uncertainty.intervals["solov2-small"]
    assert finding(found).startswith("solov2-small reaches a mask AP of")


def test_a_guest_stays_and_has_pictures(study: Path, predictions: Path):
    (folder,) = invite(study, [guest(predictions)])
    assert invite(study, [guest(predictions)]) == [folder]
    assert len(Board.read(study).runs) == 2
    guest_run = Board.read(study).runs[1]
    assert len(guest_run.photos) == len(list((folder / "thumbnails").glob("*.jpg"))) == 4
    assert not (folder / "speed.json").exists()


def test_a_guest_who_saw_few_photos_is_told(study: Path, predictions: Path, capsys: pytest.CaptureFixture[str]):
    found = json.loads(predictions.read_text())
    predictions.write_text(json.dumps([row for row in found if row["image_id"] == found[0]["image_id"]]))
    invite(study, [guest(predictions)])
    assert "yolo11n: predictions for 1 of 4 photos of test" in capsys.readouterr().err


def test_a_guest_that_comes_again_takes_its_own_place(study: Path, predictions: Path):
    (first,) = invite(study, [guest(predictions, speed=95)])
    predictions.write_text(json.dumps(json.loads(predictions.read_text())[::2]))
    (second,) = invite(study, [guest(predictions)])
    assert second != first
    assert [path.name for path in (study / "guests").iterdir()] == [second.name]


def test_a_higher_guest_is_named_and_not_crowned(study: Path, predictions: Path):
    invite(study, [guest(predictions)])
    (found,) = Board.read(study).groups
    better = replace(found, methods=found.methods.assign(AP=[0.9 if own else 0.5 for own in found.methods["guest"]]))
    assert finding(better).endswith("Higher, but on a footing that is not known: yolo11n (90.0).")


def test_the_report_takes_guests(study: Path, predictions: Path):
    found = call(report, f"study={study}", f"guests=[{{name: other, predictions: {predictions}}}]", "logger=none")
    assert sorted(row["label"] for row in found["groups"][0]["methods"]) == ["other", "solov2-small"]
    html = Path(found["report"]).read_text()
    assert "Footing unknown" in html
    # the report without saying so again has them still
    found = call(report, f"study={study}", "logger=none")
    assert len(found["groups"][0]["methods"]) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"predictions": "x.json"}, r"expected a list of \{name: WORD, predictions: FILE\}"),
        ({"name": "a b", "predictions": "x.json"}, "name: WORD"),
        ({"name": "a"}, "predictions: FILE"),
        ({"name": "a", "predictions": "x.json", "fps": 3}, "speed: FPS"),
        ({"name": "a", "predictions": "x.json", "speed": "fast"}, "a has speed='fast'; expected images a second"),
        ({"name": "solov2-small", "predictions": "x.json"}, "solov2-small is a method of this study"),
        ("yolo", "guests has yolo: expected a list of"),
    ],
)
def test_a_guest_that_is_not_understood_is_refused(study: Path, settings: Any, message: str):
    with pytest.raises(ConfigError, match=message):
        invite(study, [settings])


def test_predictions_of_other_photos_are_refused_and_leave_nothing(study: Path, predictions: Path):
    results = json.loads(predictions.read_text())
    predictions.write_text(json.dumps([{**results[0], "image_id": 10**9}]))
    with pytest.raises(DataError, match="lists no such image"):
        invite(study, [guest(predictions)])
    assert not (study / "guests").exists()
