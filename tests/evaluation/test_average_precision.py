from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pycocotools.mask as rle_codec
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from maskbench.errors import DataError
from maskbench.evaluation.average_precision import AveragePrecision
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.results import coco_results, read_predictions
from maskbench.evaluation.scoring import as_metrics, score
from maskbench.structures import Instances

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SQUARE = (10, 10, 10, 10)


class BoundaryEval(pycocotools.cocoeval.COCOeval):
    """Boundary AP as its authors define it (Cheng et al., CVPR 2021), pixel by pixel; crowds by their masks alone."""

    def computeIoU(self, image, category):
        overlap = np.array(super().computeIoU(image, category))
        found = sorted(self._dts[image, category], key=lambda record: -record["score"])[: self.params.maxDets[-1]]
        for column, wanted in enumerate(self._gts[image, category]):
            for row, record in enumerate(found):
                if not wanted["iscrowd"]:
                    a, b = (near_the_edge(rle_codec.decode(one["segmentation"])) for one in (record, wanted))
                    share = (a & b).sum() / union if (union := (a | b).sum()) else 0
                    overlap[row, column] = min(overlap[row, column], share)
        return overlap


def near_the_edge(mask: np.ndarray) -> np.ndarray:
    """Pixels within 2 % of the diagonal of one that is not of the mask, the world beyond the image being none."""
    reach = max(1, round(0.02 * np.hypot(*mask.shape)))
    padded = np.pad(mask, reach).astype(bool)
    inside = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1)).all(axis=(2, 3))
    return mask.astype(bool) & ~inside


def judged_by_pycocotools(content, results, iou_type, limit=100, image_ids=None):
    """pycocotools' numbers, AP at `limit` where pycocotools itself prints AP at 100 alone; and AP by class."""
    evaluator, iou_type = (
        (BoundaryEval, "segm") if iou_type == "boundary" else (pycocotools.cocoeval.COCOeval, iou_type)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycocotools.coco.COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        judge = evaluator(truth, truth.loadRes(copy.deepcopy(results)), iou_type)
        judge.params.maxDets = [1, 10, limit]
        if image_ids is not None:
            judge.params.imgIds = list(image_ids)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = judge.eval["precision"][:, :, :, 0, -1]
    per_class = [part[part > -1].mean() if (part > -1).any() else -1 for part in np.moveaxis(precision, 2, 0)]
    judge.stats[0] = precision[precision > -1].mean() if (precision > -1).any() else -1
    return judge.stats, per_class


@pytest.mark.parametrize("iou_type", ["segm", "bbox", "boundary"])
@pytest.mark.parametrize(("seed", "limit"), [(seed, 12 if seed > 8 else 100) for seed in range(12)])
def test_the_numbers_are_pycocotools(tmp_path: Path, random_scene, seed, limit, iou_type):
    content, results = random_scene(seed, objects=30 if limit < 100 else 6)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    scores = score(path, results, iou_type=iou_type, max_instances=limit)
    stats, per_class = judged_by_pycocotools(content, results, iou_type, limit)
    assert list(scores.summary) == [f"AR{limit}" if name == "AR100" else name for name in NAMES]
    assert list(scores.summary.values()) == pytest.approx(stats, abs=1e-12)
    assert list(scores.per_class) == [f"class {number}" for number in sorted(c["id"] for c in content["categories"])]
    assert list(scores.per_class.values()) == pytest.approx(per_class, abs=1e-12)


def test_a_part_of_the_images_is_scored_as_pycocotools_does(tmp_path: Path, random_scene):
    content, results = random_scene(3)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    part = [image["id"] for image in content["images"]][1:3]
    stats, _ = judged_by_pycocotools(content, results, "segm", image_ids=part)
    scores = score(path, results, iou_type="segm", image_ids=part)
    assert list(scores.summary.values()) == pytest.approx(stats, abs=1e-12)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_published_results_of_coco(shared: Path, iou_type):
    folder = shared / "data/eval_fixtures"
    published = json.loads((folder / "expected.json").read_text())["coco_val2014_100"][iou_type]
    results = read_predictions(folder / "coco_val2014_100" / published["dt"])
    scores = score(folder / "coco_val2014_100/instances_val2014_100.json", results, iou_type=iou_type)
    assert scores.summary == pytest.approx(published["expected"], abs=1e-12)


@pytest.mark.parametrize(
    ("case", "truth", "found", "drop"),
    [
        ("segm_as_given", "gt_dataset.json", "dt_dataset.json", ()),
        ("segm_rle_without_bbox", "gt_dataset.json", "dt_dataset.json", ("bbox",)),
        ("ignore_bbox", "gt_ignore_test.json", "dt_ignore_test.json", ()),
    ],
)
def test_published_results_of_faster_coco_eval(shared: Path, case, truth, found, drop):
    folder = shared / "data/eval_fixtures"
    expected = json.loads((folder / "expected.json").read_text())["faster_coco_eval_small"][case]["expected"]
    records = read_predictions(folder / "faster_coco_eval_small" / found)
    results = [{key: value for key, value in record.items() if key not in drop} for record in records]
    iou_type = "bbox" if case == "ignore_bbox" else "segm"
    scores = score(folder / "faster_coco_eval_small" / truth, results, iou_type=iou_type)
    assert scores.summary == pytest.approx(expected, abs=1e-12)


def test_the_truth_scores_one(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE), (11, 8, (0, 0, 35, 35))])
    results = [result(7, 3, SQUARE), result(11, 8, (0, 0, 35, 35))]
    for iou_type in ("segm", "bbox", "boundary"):
        scores = score(path, results, iou_type=iou_type)
        assert scores.summary["AP"] == scores.summary["AR1"] == 1
        assert (scores.summary["APs"], scores.summary["APm"], scores.summary["APl"]) == (1, 1, -1)
        assert scores.per_class == {"class 3": 1, "class 8": 1}


def test_a_mask_beside_the_truth_scores_what_its_iou_allows(annotation_file, result):
    # 10 x 10 moved by 2: 80 pixels shared of 120, an IoU of 0.667, enough for 0.50, 0.55, 0.60 and 0.65.
    scores = score(annotation_file([(7, 3, SQUARE)]), [result(7, 3, (12, 10, 10, 10))], iou_type="segm")
    assert scores.summary["AP"] == pytest.approx(0.4)
    assert (scores.summary["AP50"], scores.summary["AP75"]) == (1, 0)


def test_nothing_found_scores_zero_and_nothing_to_find_is_undefined(annotation_file):
    scores = score(annotation_file([(7, 3, SQUARE)]), [], iou_type="segm")
    assert scores.summary["AP"] == scores.summary["AR100"] == 0
    assert scores.per_class == {"class 3": 0, "class 8": -1}
    scores = score(annotation_file([]), [], iou_type="bbox")
    assert set(scores.summary.values()) == set(scores.per_class.values()) == {-1.0}


def test_results_of_equal_score_keep_their_order(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE)])
    right, wrong = result(7, 3, SQUARE, 0.5), result(7, 3, (30, 30, 5, 5), 0.5)
    assert score(path, [right, wrong], iou_type="segm").summary["AP"] == 1
    assert score(path, [wrong, right], iou_type="segm").summary["AP"] == pytest.approx(0.5)


def test_detections_in_a_crowd_cost_nothing(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE), (7, 3, (20, 20, 20, 20), "crowd")])
    results = [result(7, 3, (21, 21, 4, 4), 0.9), result(7, 3, (30, 30, 4, 4), 0.8), result(7, 3, SQUARE, 0.1)]
    assert score(path, results, iou_type="segm").summary["AP"] == 1
    assert score(path, [*results, result(7, 3, (0, 30, 4, 4), 0.5)], iou_type="segm").summary["AP"] < 1


def test_the_limit_is_of_an_image_and_class(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE)])
    results = [result(7, 3, (30, 30, 5, 5), 0.9), result(7, 3, SQUARE, 0.5), result(11, 3, (0, 0, 5, 5), 0.1)]
    assert score(path, results, iou_type="segm", max_instances=2).summary["AP"] == pytest.approx(0.5)
    assert score(path, results, iou_type="segm", max_instances=1).summary["AP"] == 0
    summary = score(path, results, iou_type="segm", max_instances=2).summary
    assert (summary["AR1"], summary["AR2"], summary["AR10"]) == (0, 1, 1)


def test_boxes_are_bbox_else_box_else_the_masks(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE)])
    right, wrong = list(SQUARE), [30, 30, 5, 5]
    for record, expected in [
        (result(7, 3, tuple(wrong), bbox=right, box=wrong), 1),
        (result(7, 3, tuple(wrong), box=right), 1),
        (result(7, 3, tuple(wrong)), 0),
        ({"image_id": 7, "category_id": 3, "score": 1, "bbox": right}, 1),
    ]:
        assert score(path, [record], iou_type="bbox").summary["AP"] == expected


def test_area_is_the_bboxs_if_there_is_one(annotation_file, result):
    path = annotation_file([(7, 3, (0, 0, 5, 5)), (11, 3, SQUARE)])
    results = [result(11, 3, SQUARE, 0.5)]
    # a false alarm of 25 pixels that outranks the right one costs APs, unless its bbox makes it a medium one
    small = result(7, 3, (30, 30, 5, 5), 0.9, box=[0, 0, 40, 40])
    alone = score(path, results, iou_type="segm").summary["APs"]
    assert score(path, [small, *results], iou_type="segm").summary["APs"] < alone
    medium = {**small, "bbox": [0, 0, 40, 40]}
    assert score(path, [medium, *results], iou_type="segm").summary["APs"] == alone


def test_results_of_another_data_set_are_named(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE)])
    with pytest.raises(DataError, match=r"record 1 \(image 8, category 3\): .*annotations\.json lists no such image"):
        score(path, [result(7, 3, SQUARE), result(8, 3, SQUARE)], iou_type="segm")
    with pytest.raises(DataError, match=r"record 0 \(image 7, category 4\): .* no such category, it has \[3, 8\]"):
        score(path, [result(7, 4, SQUARE)], iou_type="segm")
    with pytest.raises(DataError, match=r"record 0 .* has no segmentation; score boxes with iou_type=bbox"):
        score(path, [{"image_id": 7, "category_id": 3, "score": 1, "bbox": list(SQUARE)}], iou_type="segm")
    with pytest.raises(DataError, match="the mask is 4x4 pixels, but image 7 is 40x40"):
        score(path, [result(7, 3, SQUARE, segmentation={"size": [4, 4], "counts": "0`0"})], iou_type="segm")


@pytest.mark.parametrize("image_ids", [[], [7, 8]])
def test_images_that_are_not_there_are_named(annotation_file, image_ids):
    with pytest.raises(DataError, match=r"expected images among its 2, found (none|\[8\])"):
        score(annotation_file([]), [], iou_type="segm", image_ids=image_ids)


def test_nothing_is_said_and_nothing_changed(annotation_file, result, capfd, caplog):
    truth, results = GroundTruth(annotation_file([(7, 3, SQUARE)])), [result(7, 3, SQUARE)]
    before = copy.deepcopy(results)
    with caplog.at_level(logging.INFO):
        first = score(truth, results, iou_type="segm")
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")
    assert results == before
    assert score(truth, results, iou_type="segm") == first


def test_id_zero_is_warned_of_once_and_scored_as_pycocotools_does(tmp_path: Path, random_scene):
    content, results = random_scene(1)
    content["annotations"][0]["id"] = 0
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="id 0") as said:
        scores = score(path, results, iou_type="segm")
    assert len(said) == 1
    assert list(scores.summary.values()) == pytest.approx(judged_by_pycocotools(content, results, "segm")[0], abs=1e-12)


def test_the_reasons_come_where_they_are_asked_for(annotation_file, result):
    path = annotation_file([(7, 3, SQUARE), (7, 3, (20, 10, 5, 10))])
    results = [result(7, 3, SQUARE, 0.9)]
    plain = score(path, results, iou_type="segm")
    why = score(path, results, iou_type="segm", why=True)
    assert (plain.errors, plain.strata) == (None, {})
    assert why.summary == plain.summary
    assert why.errors.counts["missed"] == 1
    assert why.strata["crowding"]["one or two"] == {"AP": pytest.approx(51 / 101), "truths": 2}
    assert why.strata["crowding"]["alone"] == {"AP": -1, "truths": 0}
    found = as_metrics({"segm": why})
    assert json.loads(json.dumps(found))["errors"]["segm"]["gains"]["missed"] == pytest.approx(50 / 101)
    assert found["strata"]["segm"]["occlusion"]["none"]["truths"] == 2
    with pytest.raises(ValueError, match="those of masks, but iou_type is bbox"):
        score(path, results, iou_type="bbox", why=True)


# Federated annotations, as in LVIS -----------------------------------------------------------------------------------


@pytest.fixture
def federated(annotation_file):
    """`annotation_file`, with what LVIS says of images 7 and 11 beside the objects."""

    def write(objects, negative=(), vague=(), ignored=()) -> Path:
        path = annotation_file(objects)
        content = json.loads(path.read_text())
        for image in content["images"]:
            image["neg_category_ids"] = [category for own, category in negative if own == image["id"]]
            image["not_exhaustive_category_ids"] = [category for own, category in vague if own == image["id"]]
        for category, frequency in zip(content["categories"], "rf", strict=True):
            category["frequency"] = frequency
        for index in ignored:
            content["annotations"][index]["ignore"] = 1
        path.write_text(json.dumps(content))
        return path

    return write


def test_a_class_that_was_not_looked_for_costs_nothing(federated, result):
    objects, wrong = [(7, 3, SQUARE), (11, 8, SQUARE)], result(11, 3, (30, 30, 5, 5), 0.99)
    results = [result(7, 3, SQUARE), result(11, 8, SQUARE), wrong]
    assert score(federated(objects), results, iou_type="segm").summary["AP"] == 1
    absent = score(federated(objects, negative=[(11, 3)]), results, iou_type="segm").summary
    assert (absent["APr"], absent["APf"], absent["AP"]) == (pytest.approx(0.5), 1, pytest.approx(0.75))
    assert list(absent) == ["AP", "AP50", "AP75", *["APs", "APm", "APl", "APr", "APf", "AR300", "ARs", "ARm", "ARl"]]


def test_a_class_that_was_not_annotated_to_the_end_costs_nothing_and_still_gains(federated, result):
    objects = [(7, 3, SQUARE)]
    results = [result(7, 3, (30, 30, 5, 5), 0.99), result(7, 3, SQUARE)]
    assert score(federated(objects), results, iou_type="segm").summary["AP"] == pytest.approx(0.5)
    assert score(federated(objects, vague=[(7, 3)]), results, iou_type="segm").summary["AP"] == 1


def test_an_ignored_object_is_neither_gain_nor_harm_and_found_once(federated, result):
    path = federated([(7, 3, SQUARE), (7, 3, (30, 30, 8, 8))], ignored=[1])
    twice = [result(7, 3, (30, 30, 8, 8), 0.99), result(7, 3, (30, 30, 8, 8), 0.98)]
    assert score(path, [twice[0], result(7, 3, SQUARE)], iou_type="segm").summary["AP"] == 1
    assert score(path, [*twice, result(7, 3, SQUARE)], iou_type="segm").summary["AP"] == pytest.approx(0.5)


def test_the_limit_is_of_an_image_over_all_classes(federated, result):
    path = federated([(7, 3, SQUARE), (7, 8, (0, 0, 5, 5))])
    results = [result(7, 8, (0, 0, 5, 5), 0.5), result(7, 3, SQUARE, 0.9)]
    assert score(path, results, iou_type="segm", max_instances=2).summary["AP"] == 1
    one = score(path, results, iou_type="segm", max_instances=1).summary
    assert (one["APr"], one["APf"], one["AR1"]) == (1, 0, 0.5)


@pytest.mark.parametrize("seed", range(8))
def test_federated_numbers_are_faster_coco_evals(tmp_path: Path, random_scene, seed):
    content, results = random_scene(seed, images=6, objects=12)
    # an empty mask: the tool of LVIS drops it, faster-coco-eval counts it
    results = [record for record in results if rle_codec.area(record["segmentation"])]
    rng, categories = np.random.default_rng(seed), [category["id"] for category in content["categories"]]
    for image in content["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [category for category in categories if rng.random() < 0.3]
    for category, frequency in zip(content["categories"], "rcf", strict=True):
        category["frequency"] = frequency
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    wanted, found = COCO(copy.deepcopy(content)), copy.deepcopy(results)
    judge = COCOeval_faster(wanted, wanted.loadRes(found), "segm", lvis_style=True, print_function=lambda *_: None)
    judge.params.maxDets = [300]
    judge.run()
    expected = judge.stats_as_dict
    summary = score(path, results, iou_type="segm").summary
    names = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
    names |= {"APr": "APr", "APc": "APc", "APf": "APf"}
    assert [summary[name] for name in names] == pytest.approx([expected[name] for name in names.values()], abs=1e-12)


# The metric ----------------------------------------------------------------------------------------------------------

FOUND = {
    7: [(0, SQUARE, 0.9), (1, (2, 2, 8, 8), 0.4)],
    11: [(1, (0, 0, 30, 30), 0.8), (0, (31, 0, 9, 9), 0.3)],
    13: [],
}


@pytest.fixture
def path(annotation_file) -> Path:
    objects = [(7, 3, SQUARE), (7, 8, (3, 2, 8, 8)), (11, 8, (0, 0, 31, 30)), (13, 3, (5, 5, 5, 5))]
    return annotation_file(objects, images=(7, 11, 13))


@pytest.fixture
def metric(path: Path) -> AveragePrecision:
    return AveragePrecision(path, category_ids=(3, 8))


def test_the_metric_says_what_score_says(metric: AveragePrecision, path: Path, predict):
    for image in FOUND:
        instances, frame = predict(image, FOUND[image])
        metric.update([instances], [frame])
    computed = metric.compute()
    assert list(computed) == ["segm", "bbox", "per_class"]
    for iou_type in ("segm", "bbox"):
        expected = score(path, metric.results(), iou_type=iou_type)
        assert computed[iou_type] == expected.summary
        assert computed["per_class"][iou_type] == expected.per_class
    assert computed == json.loads(json.dumps(computed))


def test_order_and_repetition_of_images_change_nothing(metric: AveragePrecision, predict):
    pairs = [predict(image, FOUND[image]) for image in (7, 11, 13)]
    metric.update(*zip(*pairs, strict=True))
    expected, results = metric.compute(), metric.results()
    assert [record["image_id"] for record in results] == [7, 7, 11, 11]
    metric.reset()
    metric.update(*zip(pairs[2], pairs[1], pairs[0], pairs[1], strict=True))
    assert metric.compute() == expected
    assert metric.results() == results


def test_images_without_a_prediction_count_as_missed(metric: AveragePrecision, path: Path, predict):
    instances, frame = predict(7, [(0, SQUARE, 0.9)])
    metric.update([instances], [frame])
    assert metric.compute()["per_class"]["segm"]["class 3"] < 1
    part = AveragePrecision(path, (3, 8), image_ids=[7], iou_types=["segm"])
    part.update([instances], [frame])
    computed = part.compute()
    assert computed["per_class"] == {"segm": {"class 3": 1, "class 8": 0}}
    assert "bbox" not in computed
    truth = GroundTruth(path)
    ceiling = AveragePrecision(truth, (3, 8))
    sharing = AveragePrecision(truth, (3, 8), image_ids=[7], iou_types=["segm"])
    sharing.update([instances], [frame])
    assert ceiling.truth is sharing.truth
    assert sharing.compute() == computed


def test_an_epoch_without_a_prediction_scores_zero(metric: AveragePrecision, predict):
    metric.update(*zip(predict(7, []), strict=True))
    assert metric.compute()["segm"]["AP"] == 0
    assert metric.results() == []


def test_reset_forgets(metric: AveragePrecision, predict):
    metric.update(*zip(predict(7, FOUND[7]), strict=True))
    first = metric.compute()
    metric.reset()
    assert metric.results() == []
    metric.update(*zip(predict(7, []), strict=True))
    assert metric.compute() != first


def test_the_metric_survives_what_modules_go_through(metric: AveragePrecision, predict):
    metric.update(*zip(predict(7, FOUND[7]), strict=True))
    expected = metric.compute()
    hash(metric)
    for copied in (pickle.loads(pickle.dumps(metric)), metric.clone(), metric.to("cpu").double()):
        assert copied.compute() == expected
    assert metric.state_dict() == {}
    assert list(metric.buffers()) == []


def test_called_as_a_module_it_scores_the_batch_and_keeps_it(metric: AveragePrecision, predict):
    pairs = [predict(image, FOUND[image]) for image in FOUND]
    metric.update(*zip(*pairs, strict=True))
    expected = metric.compute()
    metric.reset()
    for instances, frame in pairs:
        metric([instances], [frame])
    assert metric.compute() == expected


def test_a_prediction_for_every_image_is_asked_for(metric: AveragePrecision, predict):
    instances, frame = predict(7, FOUND[7])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        metric.update([instances], [frame, frame])


def test_labels_that_the_truth_does_not_list_neither_help_nor_harm(path: Path, predict):
    alone, more = AveragePrecision(path, (3, 8)), AveragePrecision(path, (3, 8, 9))
    for image, objects in FOUND.items():
        alone.update(*zip(predict(image, objects), strict=True))
        more.update(*zip(predict(image, [*objects, (2, SQUARE, 0.99)]), strict=True))
    assert more.compute() == alone.compute()
    assert more.results() == alone.results()


def test_labels_without_a_category_are_refused_at_the_door(path: Path):
    with pytest.raises(DataError, match=r"lists the categories \[3, 8\], but labels stand for \[9\]"):
        AveragePrecision(path, (9,))


def test_encoded_masks_score_as_dense_ones_do(metric: AveragePrecision, predict):
    instances, frame = predict(7, FOUND[7])
    encoded = type(instances.masks)(instances.masks.rle())
    copied = Instances(encoded, instances.boxes, instances.labels, instances.scores)
    assert coco_results(copied, frame, (3, 8)) == coco_results(instances, frame, (3, 8))


def test_scoring_a_file_takes_no_torchmetrics() -> None:
    """Which holds a quarter of a gigabyte, and what it imports."""
    script = "import sys, maskbench.evaluation.scoring; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
