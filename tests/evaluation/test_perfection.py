"""Who finds everything has 1 in every number, who finds nothing has 0: on every data set that is at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskbench.data.shapes import draw
from maskbench.evaluation.bootstrap import whole_ap
from maskbench.evaluation.deployment import tally
from maskbench.evaluation.errors import KINDS
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.results import Result
from maskbench.evaluation.scoring import Scores, score

NUCLEI = "dsb2018/annotations/instances_val.json"
REAL = (
    "coco_slice/annotations/instances_val.json",
    pytest.param(NUCLEI, marks=pytest.mark.slow),
    "eval_fixtures/coco_val2014_100/instances_val2014_100.json",
    "eval_fixtures/faster_coco_eval_small/gt_dataset.json",
)
WHOLE = ("precision", "recall", "f1", "mean_accuracy", "pq", "sq", "rq")
MOST = 1000
"""Instances an image: nuclei are up to 375."""


def everything(truth: GroundTruth, iou_type: str) -> list[Result]:
    """The truth as results, crowds left out: masks, or the boxes that the file has."""
    geometry, shape = ("bbox", "bbox") if iou_type == "bbox" else ("segm", "segmentation")
    return [
        {name: annotation[name] for name in ("image_id", "category_id", shape)} | {"score": 1.0}
        for annotation in truth.annotations(geometry)
        if not annotation["iscrowd"]
    ]


def all_numbers(found: Scores) -> dict[str, float]:
    """Of an evaluation, but the recalls of a few detections an image, which many objects are beyond."""
    numbers = {name: value for name, value in found.summary.items() if name not in ("AR1", "AR10")}
    kept = tally(found.matches, 0.0)
    numbers |= {name: getattr(kept, name) for name in WHOLE} | kept.accuracy | {"whole": whole_ap(found.matches)}
    for by, strata in found.strata.items():
        numbers |= {f"{by}: {name}": part["AP"] for name, part in strata.items()}
    return numbers | {f"class {name}": value for name, value in found.per_class.items()}


def require_ones_and_zeros(truth: GroundTruth) -> None:
    for iou_type in ("segm", "bbox", "boundary"):
        settings: Any = {"iou_type": iou_type, "max_instances": MOST, "why": iou_type == "segm"}
        best, worst = (score(truth, results, **settings) for results in (everything(truth, iou_type), []))
        # -1 of what is not there: large objects in small photos, classes of no object
        assert {name: value for name, value in all_numbers(best).items() if value not in (pytest.approx(1), -1)} == {}
        assert {name: value for name, value in all_numbers(worst).items() if value not in (0, -1)} == {}
        assert (best.summary["AP"], worst.summary["AP"]) == (pytest.approx(1), 0)
        if best.errors and worst.errors:
            assert best.errors.gains == pytest.approx(dict.fromkeys(best.errors.gains, 0))
            assert {kind for kind in KINDS if worst.errors.counts[kind]} == {"missed"}


@pytest.mark.parametrize("name", REAL)
def test_on_real_photographs(name: str, shared: Path) -> None:
    require_ones_and_zeros(GroundTruth(shared / "data" / name))


def test_on_some_photographs_of_nuclei(shared: Path, tmp_path: Path) -> None:
    content = json.loads((shared / "data" / NUCLEI).read_text(encoding="utf-8"))
    content["images"] = content["images"][:30]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (tmp_path / "some.json").write_text(json.dumps(content), encoding="utf-8")
    require_ones_and_zeros(GroundTruth(tmp_path / "some.json"))


def test_on_drawn_shapes() -> None:
    folder = draw(images=8, val_images=24, size=96, empty=0.2)
    require_ones_and_zeros(GroundTruth(folder / "annotations" / "instances_val.json"))


@pytest.mark.parametrize("iou_type", ["segm", "bbox", "boundary"])
@pytest.mark.parametrize("objects", [[], [(7, 3, (2, 2, 10, 10), "crowd")]], ids=["no objects", "crowds alone"])
def test_where_there_is_nothing_to_find_no_number_is_made_up(iou_type, objects, annotation_file, result) -> None:
    settings: Any = {"iou_type": iou_type, "why": iou_type == "segm"}
    for results in ([], [result(7, 3, (2, 2, 10, 10), 0.9)]):
        found = score(annotation_file(objects), results, **settings)
        assert set(all_numbers(found).values()) == {-1}
