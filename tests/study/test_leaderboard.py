from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pandas as pd
import pytest

from maskbench.study.board import Board, as_markdown, write_leaderboard
from maskbench.study.leaderboard import COLUMNS, group, marks, remarks, tabulate, unfinished, used
from maskbench.study.runs import read_runs


def test_every_run_has_a_row_whatever_its_state(study: Path) -> None:
    table = tabulate(read_runs(study))
    assert list(table["state"]) == ["done", "done", "done", "failed", "done", "done"]
    lost = table.iloc[3]
    assert math.isnan(lost["AP"])
    assert (lost["method"], lost["paradigm"], lost["attempts"]) == ("mask_rcnn-small", "two-stage", 1)
    assert "OutOfMemoryError" in lost["reason"]


def test_numbers_come_from_their_files(study: Path) -> None:
    runs = read_runs(study)
    row, run = tabulate(runs).iloc[0], runs[0]
    assert row["AP"] == run.metrics["segm"]["AP"]
    assert row["box_AP"] == run.metrics["bbox"]["AP"]
    assert row["ceiling_AP"] == 0.93
    assert (row["FPS"], row["latency_ms"], row["latency_p95_ms"]) == (
        run.speed["fps"],
        run.speed["latency_ms"],
        run.speed["p95_ms"],
    )
    assert (row["parameters_M"], row["GFLOPs"], row["GFLOPs_instances"]) == (1.38, 0.9, 4)
    assert (row["train_minutes"], row["images_seen"], row["train_memory_MB"]) == (3.4, 9000, 910.5)
    assert (row["score_rule"], row["checkpoint"]) == ("semantic_x_compactness", "last")
    assert row["footing"] == run.keys["footing"].key


def test_what_the_data_do_not_have_is_no_number(study: Path) -> None:
    table = tabulate(read_runs(study))
    assert table["APl"].isna().all()
    assert "APl" not in {column.name for column in used(group(table)[0])}


def test_seeds_become_mean_deviation_and_n(study: Path) -> None:
    table = tabulate(read_runs(study))
    (found,) = group(table)
    methods = found.methods.set_index("method")
    for method in ("solov2-small", "discriminative-small"):
        values = list(table.loc[table["method"] == method, "AP"])
        assert methods.loc[method, "AP"] == pytest.approx(mean(values))
        assert methods.loc[method, "AP_std"] == pytest.approx(stdev(values))
        assert methods.loc[method, "n"] == 2
    assert methods.loc["mask_rcnn-small", "n"] == 1
    assert math.isnan(float(methods.loc["mask_rcnn-small", "AP_std"]))
    assert found.one_seed
    assert list(found.methods["AP"]) == sorted(found.methods["AP"], reverse=True)
    assert list(dict.fromkeys(found.trials["method"])) == list(found.methods["method"])


def test_footings_are_kept_apart(writer: Any) -> None:
    for method in ("solov2-small", "mask_rcnn-small"):
        folder = writer(method)
    writer("solov2-small", backbone={"name": "resnet50", "weights": "pretrained"})
    first, second = group(tabulate(read_runs(folder.parent)))
    assert (len(first.methods), len(second.methods)) == (2, 1)
    assert first.footing != second.footing


def test_operating_points_of_a_method_are_rows_of_one_footing(writer: Any) -> None:
    folder = writer("solov2-small")
    writer("solov2-small", transforms={"train": {"scale": [1.0, 1.0]}, "eval": {"short": 96}})
    (found,) = group(tabulate(read_runs(folder.parent)))
    assert sorted(found.methods["label"]) == ["solov2-small (short 96)", "solov2-small (short None)"]
    assert list(found.methods["n"]) == [1, 1]


def test_settings_of_a_method_are_rows_of_one_footing_and_never_seeds_of_one(writer: Any) -> None:
    for seed, sigma in ((0, 0.2), (1, 0.2), (0, 0.3)):
        folder = writer("solov2-small", seed, method={"_target_": "SOLOv2", "sigma": sigma})
    writer("mask_rcnn-small")
    (found,) = group(tabulate(read_runs(folder.parent)))
    rows = found.methods.set_index("label")["n"].to_dict()
    assert rows == {"solov2-small (sigma 0.2)": 2, "solov2-small (sigma 0.3)": 1, "mask_rcnn-small": 1}


def test_runs_of_before_the_settings_were_a_key_are_seeds_as_they_were(writer: Any) -> None:
    for seed in (0, 1):
        path = writer("solov2-small", seed) / "fairness.json"
        keys = json.loads(path.read_text())
        del keys["method"]
        path.write_text(json.dumps(keys))
    (found,) = group(tabulate(read_runs(path.parents[1])))
    assert found.methods[["label", "n"]].to_dict("records") == [{"label": "solov2-small", "n": 2}]


def test_speeds_of_two_machines_are_never_averaged(writer: Any) -> None:
    folder = writer("solov2-small", 0)
    writer("solov2-small", 1)
    writer("solov2-small", 2, machine="another")
    writer("mask_rcnn-small", 0, machine="another")
    table = tabulate(read_runs(folder.parent))
    (found,) = group(table)
    here = table[(table["method"] == "solov2-small") & (table["seed"] < 2)]
    row = found.methods.set_index("method").loc["solov2-small"]
    assert row["FPS"] == pytest.approx(here["FPS"].mean())
    assert row["n"] == 3
    flagged = {run["method"]: marks(run) for _, run in found.methods.iterrows()}
    assert flagged == {"solov2-small": "", "mask_rcnn-small": "†"}
    assert [mark for mark, _ in remarks(found)] == ["†"]


def test_a_busy_machine_is_marked(writer: Any) -> None:
    folder = writer("solov2-small", loaded=True)
    (found,) = group(tabulate(read_runs(folder.parent)))
    assert marks(found.methods.iloc[0]) == "‡"


def test_a_study_of_several_commits_is_marked(writer: Any) -> None:
    for seed in (0, 1):
        folder = writer("solov2-small", seed)
    writer("mask_rcnn-small", commit="ab" * 20)
    (found,) = group(tabulate(read_runs(folder.parent)))
    assert {row["method"]: marks(row) for _, row in found.methods.iterrows()} == {
        "solov2-small": "",
        "mask_rcnn-small": "*",
    }
    ((mark, meaning),) = remarks(found)
    assert (mark, "0f0f0f0" in meaning) == ("*", True)


def test_a_trial_that_was_not_timed_is_tabled_without_speed(writer: Any) -> None:
    folder = writer("solov2-small")
    (folder / "speed.json").unlink()
    (found,) = group(tabulate(read_runs(folder.parent)))
    assert math.isnan(found.methods["FPS"].iloc[0])
    assert remarks(found) == []


def test_no_speed_and_milliseconds_share_a_column() -> None:
    for column in COLUMNS:
        assert not ("fps" in column.title.lower() and "ms" in column.title.lower().split())


def test_the_files_say_the_same(study: Path) -> None:
    board = Board.read(study)
    table, paths = board.table, write_leaderboard(board)
    rows = pd.read_csv(paths["csv"])
    assert len(rows) == 6
    assert list(rows["run"]) == list(table["run"])
    found = json.loads(paths["json"].read_text())
    best = found["groups"][0]["methods"][0]
    assert (best["method"], best["n"], best["APl"]) == ("solov2-small", 2, None)
    assert best["AP"] == pytest.approx(rows[rows["method"] == "solov2-small"]["AP"].mean())
    assert [row["run"] for row in found["unfinished"]] == list(unfinished(table)["run"])
    text = paths["md"].read_text()
    assert f"| solov2-small | one-stage | 2 | {100 * best['AP']:.1f} ± " in text
    assert "failed (OutOfMemoryError: tried to allocate 2 GiB)" in text
    assert "**" not in text


def test_the_page_for_people_names_trials_and_marks(writer: Any) -> None:
    for seed in (0, 1):
        folder = writer("solov2-small", seed)
        writer("mask_rcnn-small", seed, machine="another", loaded=True)
    text = write_leaderboard(Board.read(folder.parent))["md"].read_text()
    assert "± is the standard deviation over n seeds." in text
    assert f"| `{folder.name}` | 63." in text
    assert "| mask_rcnn-small †‡ | two-stage | 2 |" in text or "| solov2-small † | one-stage | 2 |" in text
    assert "† Timed elsewhere than the others" in text
    assert "‡ Timed while other processes used the machine" in text


def test_intervals_letters_and_pairs_stand_in_the_files(writer: Any) -> None:
    for seed in (0, 1, 2):
        writer("solov2-small", seed, found=0.9)
        writer("mask_rcnn-small", seed, found=0.6)
    folder = writer("discriminative-small")
    paths = write_leaderboard(Board.read(folder.parent))
    (found,) = json.loads(paths["json"].read_text())["groups"]
    rows = {row["label"]: row for row in found["methods"]}
    assert (rows["solov2-small"]["letters"], rows["mask_rcnn-small"]["letters"]) == ("a", "b")
    assert rows["discriminative-small"]["letters"] is rows["discriminative-small"]["AP_low"] is None
    (pair,) = found["pairs"]
    assert (pair["first"], pair["second"]) == ("solov2-small", "mask_rcnn-small")
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    text = paths["md"].read_text()
    low, high = (100 * rows["solov2-small"][name] for name in ("AP_low", "AP_high"))
    assert f"| solov2-small | one-stage | 3 | {low:.1f} to {high:.1f} | a |" in text
    assert "| discriminative-small | bottom-up | 1 | – | – |" in text
    assert "1000 draws" in text


def test_counting_stands_beside_panoptic_quality(study: Path) -> None:
    paths = write_leaderboard(Board.read(study))
    (found,) = json.loads(paths["json"].read_text())["groups"]
    assert {(row["abs_DiC"], row["SBD"]) for row in found["methods"]} == {(1.37, 0.842)}
    assert {"PQ", "abs_DiC", "SBD"} <= set(pd.read_csv(paths["csv"]).columns)
    text = paths["md"].read_text()
    assert r" | PQ | \|DiC\| | SBD | " in text, "a bar would end the cell"
    assert text.count(" | 1.37 | 84.2 | ") == 3


def test_a_run_that_was_judged_before_objects_were_counted_is_tabled(writer: Any) -> None:
    folder = writer("solov2-small")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["deployment"]["test"]["counting"]
    path.write_text(json.dumps(metrics))
    text = write_leaderboard(Board.read(folder.parent))["md"].read_text()
    assert " | PQ | TP/(TP+FP+FN) at 0.5 | " in text


def test_what_footings_differ_in_stands_in_their_headings(writer: Any) -> None:
    for strides in ([4, 8, 16], [2, 4, 8]):
        folder = writer("solov2-small", backbone={"name": "resnet18", "strides": strides})
    text = as_markdown(Board.read(folder.parent))
    for strides in ("[4, 8, 16]", "[2, 4, 8]"):
        assert text.count(f" (backbone.strides = {strides}). AP × 100") == 1
