"""A run read at other input sizes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from maskbench.benchmark import benchmark
from maskbench.errors import ConfigError
from maskbench.methods.solov2 import SOLOv2
from maskbench.runtime.run_folder import read_json, write_json
from maskbench.study.board import Board
from maskbench.study.report import write_report
from trained import call, run

__all__ = ["run"]


def test_a_run_is_read_at_other_input_sizes(run: Path, tmp_path: Path) -> None:
    one = shutil.copytree(run, tmp_path / run.name)
    metrics, speed = (read_json(one / f"{name}.json") for name in ("metrics", "speed"))
    call(benchmark, f"run={one}", "images=3", "device=cpu", "sizes=96")
    found = call(benchmark, f"run={one}", "images=3", "device=cpu", "sizes=[64,32]")["runs"]
    points = read_json(one / "points.json")
    assert found == {one.name: points}
    assert list(points) == ["32", "64", "96"]
    # the photos have 64 pixels a side: that size is the run's own
    assert points["64"]["AP"] == pytest.approx(metrics["segm"]["AP"])
    assert points["32"]["AP"] != points["64"]["AP"] != points["96"]["AP"]
    assert all(point["fps"] == pytest.approx(1000 / point["latency_ms"]) for point in points.values())
    assert (read_json(one / "speed.json"), read_json(one / "metrics.json")) == (speed, metrics)
    # whoever else is at this machine is no matter here: what was timed beside others is in no picture
    for loaded in (True, False):
        write_json(one / "points.json", {side: point | {"loaded": loaded} for side, point in points.items()})
        html = write_report(Board.read(tmp_path)).read_text()
        assert ("read at other input sizes" in html) is not loaded
    assert f"{one.name.split('-seed')[0]}, short side 96" in html


def test_a_run_is_read_at_its_papers_threshold(run: Path, tmp_path: Path) -> None:
    one = shutil.copytree(run, tmp_path / run.name)
    (point,) = call(benchmark, f"run={one}", "images=3", "device=cpu", "papers=true")["runs"][one.name].values()
    assert point["score_threshold"] == SOLOv2.default_point.score_threshold == 0.1
    # after few steps nothing scores as much
    assert point["AP"] <= read_json(one / "metrics.json")["segm"]["AP"]
    table = write_report(Board.read(tmp_path)).read_text().split("papers' own thresholds")[1].split("</table>")[0]
    assert "<td>0.1</td>" in table


@pytest.mark.parametrize("setting", ["sizes=[]", "sizes=[0]", "sizes=[96.5]", "sizes=[96,abc]", "sizes=abc"])
def test_sizes_that_are_none_are_refused(setting: str, run: Path) -> None:
    with pytest.raises(ConfigError, match="short sides of the network input"):
        call(benchmark, f"run={run}", "device=cpu", setting)


def test_sizes_belong_to_the_leaderboards_conditions(run: Path) -> None:
    with pytest.raises(ConfigError, match="leave weights, batch"):
        call(benchmark, f"run={run}", "device=cpu", "sizes=[64]", "batch=2")
