"""Published detections: the same numbers however they are ordered, and however many processes share them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maskbench.evaluate import evaluate
from maskbench.evaluation.results import read_predictions, write_predictions
from trained import call


@pytest.fixture
def fixtures(shared: Path) -> Path:
    return shared / "data" / "eval_fixtures"


def published(fixtures: Path) -> list[tuple[Path, Path, str, dict[str, float]]]:
    """Annotations, results, what is compared, and the numbers."""
    expected = json.loads((fixtures / "expected.json").read_text())
    large, small = (fixtures / name for name in ("coco_val2014_100", "faster_coco_eval_small"))
    rows = [
        (large / "instances_val2014_100.json", large / row["dt"], iou_type, row["expected"])
        for iou_type, row in expected["coco_val2014_100"].items()
    ]
    given = expected["faster_coco_eval_small"]["segm_as_given"]["expected"]
    return [*rows, (small / "gt_dataset.json", small / "dt_dataset.json", "segm", given)]


def numbers(annotations: Path, predictions: Path, iou_type: str) -> dict[str, Any]:
    return call(evaluate, f"predictions={predictions}", f"annotations={annotations}", f"iou_type={iou_type}")


def test_a_permutation_of_the_images_moves_no_digit(fixtures: Path, tmp_path: Path) -> None:
    for truth, predictions, iou_type, expected in published(fixtures):
        results = read_predictions(predictions)
        order = sorted({result["image_id"] for result in results})
        random.Random(0).shuffle(order)
        place = {image: rank for rank, image in enumerate(order)}
        shuffled = tmp_path / f"{truth.stem}-{iou_type}.json"
        write_predictions(shuffled, sorted(results, key=lambda result: place[result["image_id"]]))
        found = numbers(truth, shuffled, iou_type)
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_a_permutation_of_everything_moves_no_digit_where_scores_are_distinct(fixtures: Path, tmp_path: Path) -> None:
    for truth, predictions, iou_type, _ in published(fixtures):
        results = [
            {**result, "score": result["score"] + 1e-9 * place}
            for place, result in enumerate(read_predictions(predictions))
        ]
        assert len({result["score"] for result in results}) == len(results)
        files = [tmp_path / f"{truth.stem}-{iou_type}-{name}.json" for name in ("as-it-is", "shuffled")]
        write_predictions(files[0], results)
        random.Random(1).shuffle(results)
        write_predictions(files[1], results)
        first, second = (numbers(truth, file, iou_type) for file in files)
        assert first == second


def test_three_processes_of_unequal_share_get_the_published_numbers(fixtures: Path, tmp_path: Path) -> None:
    row = json.loads((fixtures / "expected.json").read_text())["coco_val2014_100"]["segm"]
    folder, script = fixtures / "coco_val2014_100", Path(__file__).with_name("shard_of_fixture.py")
    files = [str(folder / "instances_val2014_100.json"), str(folder / row["dt"])]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "store"), str(rank), *files], stdout=subprocess.PIPE, text=True
        )
        for rank in range(3)
    ]
    told = [json.loads(process.communicate(timeout=100)[0].splitlines()[-1]) for process in processes]
    images = [part["images"] for part in told]
    assert len(set(images)) == 3
    assert sum(images) == len(json.loads(Path(files[0]).read_text())["images"]) + 1, "one of them twice"
    for part in told:
        assert {name: part["numbers"][name] for name in row["expected"]} == pytest.approx(row["expected"], abs=1e-9)
