from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskbench.errors import ConfigError, DataError, RunError
from maskbench.evaluate import evaluate
from maskbench.evaluation.ground_truth import GroundTruth
from maskbench.evaluation.results import write_predictions
from maskbench.runtime.compose import build_data
from maskbench.runtime.run_folder import RunFolder, read_json
from trained import TINY, call, composed, run

__all__ = ["run"]


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_published_results_to_nine_digits(shared: Path, iou_type: str) -> None:
    fixtures = shared / "data/eval_fixtures"
    published = json.loads((fixtures / "expected.json").read_text())["coco_val2014_100"][iou_type]
    folder = fixtures / "coco_val2014_100"
    found = call(
        evaluate,
        f"predictions={folder / published['dt']}",
        f"annotations={folder / 'instances_val2014_100.json'}",
        f"iou_type={iou_type}",
    )
    assert {name: found[name] for name in published["expected"]} == pytest.approx(published["expected"], abs=1e-9)


def test_a_run_is_scored_again_from_its_predictions(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    before = read_json(copy / "metrics.json")
    found = call(evaluate, f"run={copy}")
    assert found == {"run": str(copy), **before}

    write_predictions(copy / "predictions.json.gz", [])
    assert call(evaluate, f"run={copy}")["segm"]["AP"] == 0
    assert read_json(copy / "metrics.json")["segm"]["AP"] == 0

    again = call(evaluate, f"run={copy}", "predict=true")
    assert again["segm"] == before["segm"]
    assert again["ceiling"] == before["ceiling"]


def test_a_run_of_many_devices_is_judged_again_on_one(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    config = OmegaConf.load(copy / "config.yaml")
    config.trainer.update({"accelerator": "gpu", "devices": 2, "strategy": "ddp", "num_nodes": 2})
    OmegaConf.save(config, copy / "config.yaml")
    before = read_json(copy / "metrics.json")
    assert call(evaluate, f"run={copy}", "predict=true", "device=cpu")["segm"] == before["segm"]
    assert OmegaConf.load(copy / "config.yaml").trainer.devices == 2


@pytest.mark.parametrize("predict", ["predict=true", "predict=false"])
def test_other_data_than_the_runs_own_are_refused(run: Path, tmp_path: Path, predict: str) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    config = OmegaConf.load(copy / "config.yaml")
    config.data.root.seed += 1
    OmegaConf.save(config, copy / "config.yaml")
    before = read_json(copy / "data.json")["fingerprint"]
    with pytest.raises(
        RunError, match=rf"data\.json: the run's data have the fingerprint {before}, but those in .* now"
    ):
        call(evaluate, f"run={copy}", predict)
    assert read_json(copy / "metrics.json") == read_json(run / "metrics.json")


@pytest.mark.parametrize("setting", ["predict=true", "device=cpu"])
def test_a_file_of_predictions_is_not_predicted_again(setting: str) -> None:
    told = setting.replace("true", "True")
    with pytest.raises(ConfigError, match=f"{told} belongs to run=DIR"):
        call(evaluate, "predictions=some.json", "annotations=other.json", setting)


def test_a_device_is_for_predicting(run: Path) -> None:
    with pytest.raises(ConfigError, match="device=cpu belongs to predict=true"):
        call(evaluate, f"run={run}", "device=cpu")


@pytest.mark.parametrize("overrides", [(), ("run=a", "predictions=b")])
def test_what_is_evaluated_must_be_named_once(overrides: tuple[str, ...]) -> None:
    with pytest.raises(
        ConfigError,
        match=r"to evaluate: expected one of run=DIR, weights=FILE data=\.\.\. and predictions=FILE annotations=FILE",
    ):
        call(evaluate, *overrides)


@pytest.mark.parametrize("setting", ["iou_type=bbox", "max_instances=400", "annotations=other.json"])
def test_what_a_run_has_settled_is_not_set_again(run: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} belongs to predictions=FILE"):
        call(evaluate, f"run={run}", setting)


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nowhere: no run"):
        call(evaluate, f"run={tmp_path}/nowhere")
    with pytest.raises(ConfigError, match="needs the annotations=FILE"):
        call(evaluate, "predictions=some.json")
    with pytest.raises(ConfigError, match="iou_type=masks: expected one of segm, bbox, boundary"):
        call(evaluate, "predictions=some.json", "annotations=other.json", "iou_type=masks")
    with pytest.raises(DataError, match=r"some\.json"):
        call(evaluate, f"predictions={tmp_path}/some.json", "annotations=other.json")


def test_what_scores_enough_is_told_on_the_screen(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(run, tmp_path / run.name)
    truth = build_data(composed("train", TINY)).annotations("test")
    line = (f"predictions={copy / 'predictions.json.gz'}", f"annotations={truth}")
    found = call(evaluate, *line, "threshold=0.001")
    told = capsys.readouterr().err
    assert found["at_threshold"]["threshold"] == 0.001
    assert "score 0.001 or more" in told.replace("\n", " ").replace("  ", " ")
    assert "PQ" in told
    assert "SBD" in told
    counted, images = found["at_threshold"]["counting"]["overall"], len(GroundTruth(truth).images)
    kept = found["at_threshold"]
    assert counted["dic"] == pytest.approx((kept["detections"] - kept["truths"]) / images)
    assert "counting" not in call(evaluate, *line, "threshold=0.001", "iou_type=bbox")["at_threshold"]
    assert "at_threshold" not in call(evaluate, *line)
    with pytest.raises(ConfigError, match=r"threshold=0\.5 belongs to predictions=FILE"):
        call(evaluate, f"run={copy}", "threshold=0.5")


def test_photos_that_nobody_was_asked_for_are_told_of(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = build_data(RunFolder(run).read_config()).annotations("test")
    files = (f"predictions={run}/predictions.json.gz", f"annotations={annotations}")
    call(evaluate, *files)
    assert "have no prediction" not in capsys.readouterr().err
    some = tmp_path / "some.json"
    results = json.loads(gzip.decompress((run / "predictions.json.gz").read_bytes()))
    some.write_text(json.dumps([each for each in results if each["image_id"] == results[0]["image_id"]]))
    call(evaluate, f"predictions={some}", files[1])
    assert "3 of 4 photos with objects have no prediction" in capsys.readouterr().err
