from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from maskbench.benchmark import benchmark
from maskbench.errors import ConfigError, RunError
from maskbench.runtime.run_folder import read_json, write_json
from maskbench.sweep.status import Status
from trained import call, run

__all__ = ["run"]


def test_the_runs_of_a_study_are_timed_together(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first-seed0-00000000", "second-seed0-11111111"):
        shutil.copytree(run, tmp_path / name)
    (tmp_path / "unfinished-seed0-22222222").mkdir()
    failed = shutil.copytree(run, tmp_path / "failed-seed0-33333333")
    Status().failed("no memory left").write(failed)
    others = shutil.copytree(run, tmp_path / "paper-seed0-44444444")  # of a package that is not trusted
    config = (others / "config.yaml").read_text()
    (others / "config.yaml").write_text(config.replace("maskbench.methods.solov2.SOLOv2", "paper.method.Cores"))
    found = call(benchmark, f"study={tmp_path}", "images=3", "device=cpu")["runs"]
    assert "left out" in (told := capsys.readouterr().err)
    assert "paper.method.Cores" in told
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2  # of the trials' own ids: `wandb sync` joins them
    assert set(found) == {"first-seed0-00000000", "second-seed0-11111111"}
    for name, numbers in found.items():
        speed = read_json(tmp_path / name / "speed.json")
        assert speed["images"] == 3
        assert speed["threads"] == 1
        assert numbers == {key: speed[key] for key in ("latency_ms", "p95_ms", "fps")}
        assert speed["fps"] == pytest.approx(1000 / speed["latency_ms"])


def test_other_conditions_stand_beside_the_leaderboards(run: Path, tmp_path: Path) -> None:
    one = shutil.copytree(run, tmp_path / "first-seed0-00000000")
    before = read_json(one / "speed.json")
    for batch in (2, 3):
        line = (f"run={one}", "images=4", "device=cpu", f"batch={batch}", "precision=bf16-mixed")
        found = call(benchmark, *line)["runs"]
    speeds = read_json(one / "speeds.json")
    assert [name.split(", ", 1)[1] for name in speeds] == [
        f"1 thread, bf16-mixed, {batch} a batch, eager" for batch in (2, 3)
    ]
    assert [(speed["batch"], speed["images"], speed["photos"]) for speed in speeds.values()] == [(2, 4, 4), (3, 6, 3)]
    assert found[one.name]["fps"] == list(speeds.values())[-1]["fps"]
    assert read_json(one / "speed.json") == before
    with pytest.raises(ConfigError, match=r"batch=5: expected 1 to 4, the photos of test"):
        call(benchmark, f"run={one}", "images=4", "device=cpu", "batch=5")


def test_a_run_is_timed_at_its_deployment_point_as_well(run: Path, tmp_path: Path) -> None:
    one = shutil.copytree(run, tmp_path / "first-seed0-00000000")
    metrics = read_json(one / "metrics.json")
    write_json(one / "metrics.json", metrics | {"deployment": {"threshold": 0.999}})
    assert set(call(benchmark, f"run={one}", "images=3", "device=cpu")["runs"]) == {one.name}
    speed = read_json(one / "speed.json")
    assert speed["deployment"]["images"] == speed["images"] == 3
    assert sum(found for found, _ in speed["samples"]) > 0
    assert sum(found for found, _ in speed["deployment"]["samples"]) == 0, "nothing scores as much"


@pytest.mark.parametrize(
    ("setting", "told"),
    [("execution=lazy", "execution=lazy: expected one of"), ("batch=0", "batch=0"), ("precision=7", "precision")],
)
def test_conditions_that_there_are_not_are_told_at_once(setting: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        call(benchmark, f"run={tmp_path}", "device=cpu", setting)


def test_what_is_timed_must_be_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing to time: expected one of run=DIR, study=DIR and weights=FILE"):
        call(benchmark)
    with pytest.raises(RunError, match="no finished run"):
        call(benchmark, f"study={tmp_path}")
