from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from maskbench.study.board import Board
from maskbench.study.report import write_report
from maskbench.study.runs import PHOTOS
from maskbench.sweep.status import Status


def test_the_page_holds_everything_and_needs_nothing(study: Path) -> None:
    page = write_report(Board.read(study))
    html = page.read_text()
    assert page == study / "report" / "index.html"
    assert len(list((study / "plots").glob("*.svg"))) == 7
    assert "//" not in re.sub(r'"data:image/[^"]*"|url\([^)]*\)', "", html)
    assert set(re.findall(r'src="(.{11})', html)) == {"data:image/"}
    # Four photos: as they are, with the truth, and as three methods see them; seven plots, each with its numbers.
    assert html.count('role="img"') == 4 * 5
    assert html.count("<img") == html.count("<summary>The numbers</summary>") == 7
    for text in (
        "OutOfMemoryError: tried to allocate 2 GiB",
        "favours bottom-up",
        "63.",
        "± ",
        "shapes: 2000 photos, 3.5 instances an image, median size 21 px, 35 % touch a neighbour",
        "python -m maskbench.report",
    ):
        assert text in html


def test_speeds_of_other_conditions_are_a_table(writer: Any) -> None:
    folder, other = writer("solov2-small"), writer("mask_rcnn-small")
    html = write_report(Board.read(folder.parent)).read_text()
    assert "Speed under other conditions" not in html
    speeds = {
        f"NVIDIA H200, {precision}, 8 a batch, graph": {"fps": 200.0, "latency_ms": 40.0, "memory_mb": None}
        for precision in ("bf16-mixed", "32-true")
    }
    (folder / "speeds.json").write_text(json.dumps(speeds))
    (other / "speeds.json").write_text(json.dumps(dict(list(speeds.items())[:1])))
    table = write_report(Board.read(folder.parent)).read_text().split("Speed under other conditions")[1]
    rows = re.findall(r'<tr><td class="text">([^<]*)</td><td class="text">([^<]*)</td>', table.split("</table>")[0])
    first, second = "NVIDIA H200, 32-true, 8 a batch, graph", "NVIDIA H200, bf16-mixed, 8 a batch, graph"
    assert rows == [(first, "solov2-small"), (second, "solov2-small"), ("", "mask_rcnn-small")]


def test_texts_of_others_stay_texts(writer: Any) -> None:
    folder = writer("solov2-small", failed="<script>alert(1)</script>")
    html = write_report(Board.read(folder.parent)).read_text()
    assert "<script>" not in html
    assert "No trial is done yet." in html


def test_two_footings_are_two_sections(writer: Any) -> None:
    writer("solov2-small")
    folder = writer("solov2-small", backbone={"name": "resnet50", "weights": "pretrained"}, machine="another")
    html = write_report(Board.read(folder.parent)).read_text()
    assert "2 footings." in html
    assert html.count("<h2>Leaderboard</h2>") == 2
    assert "backbone.name = <code>resnet50</code>" in html


def test_what_is_not_there_yet_is_left_out(writer: Any) -> None:
    folder = writer("solov2-small", pictures=False)
    for name in ("speed.json", "history.csv", "fairness.json", "data.json"):
        (folder / name).unlink()
    Status().write(writer("mask_rcnn-small"))
    html = write_report(Board.read(folder.parent)).read_text()
    assert html.count("<img") == 2, "AP by size, and why it is lost"
    assert "The same photos" not in html
    assert re.search(r"mask_rcnn-small-seed0-\w{8}</code> running", html)
    assert "nan" not in re.sub(r'"data:image/[^"]*"', "", html).lower()


def test_a_picture_that_is_missing_is_named(study: Path) -> None:
    (thumbnails,) = study.glob("solov2*seed0*/thumbnails")
    kept = json.loads(gzip.decompress((thumbnails / PHOTOS).read_bytes()))
    for photo in kept["photos"].values():
        photo["f1"] = None
    del kept["photos"]["1007"]
    (thumbnails / PHOTOS).write_bytes(gzip.compress(json.dumps(kept).encode()))
    assert write_report(Board.read(study)).read_text().count("no picture") == 1


def test_the_same_runs_give_the_same_page(study: Path) -> None:
    assert write_report(Board.read(study)).read_bytes() == write_report(Board.read(study)).read_bytes()


def test_what_cannot_be_told_apart_is_said_and_shown(writer: Any) -> None:
    writer("solov2-small", found=0.8)
    writer("mask_rcnn-small", found=0.79)
    folder = writer("discriminative-small", found=0.5)
    html = write_report(Board.read(folder.parent)).read_text()
    assert "mask_rcnn-small can&#39;t be told from solov2-small." in html
    ap, low, high = re.search(r'<td>(\d\d\.\d)<small class="bounds">(\d\d\.\d) to (\d\d\.\d)</small>', html).groups()
    assert float(low) < float(ap) < float(high)
    assert "All pairs" in html
    assert {path.stem.split("-")[0] for path in (folder.parent / "plots").glob("*.svg")} >= {"recall", "scores"}
    assert re.search(r"Expected calibration error × 100, first seed: solov2-small \d+, mask_rcnn-small \d+,", html)
    assert html.count("<td>solov2-small</td>") == 2, "it is higher than both others"


def test_ap_by_crowding_and_occlusion_is_a_table(study: Path) -> None:
    html = write_report(Board.read(study)).read_text()
    table = html.split("Where AP is lost")[1].split("</table>")[0]
    assert '<th colspan="3"><span>crowding</span></th><th colspan="3"><span>occlusion</span></th>' in table
    assert "<th>some<br><small>300</small></th>" in table
    assert len(re.findall(r"<b>[\w-]+</b></td>(<td>\d\d\.\d</td><td>\d\d\.\d</td><td>–</td>){2}</tr>", table)) == 3


def test_what_oracles_would_gain_is_one_table_for_all(study: Path) -> None:
    table = write_report(Board.read(study)).read_text().split("gained by knowing more")[1].split("</table>")[0]
    heads = re.findall(r"<th>([^<]*)</th>", table)
    assert heads == ["as it is", "true classes", "true boxes", "true cells", "true semantic map", "ceiling"]
    rows = {
        name: re.findall(r"<td>([^<]*)</td>", cells) for name, cells in re.findall(r"<b>(.*?)</b>(.*?)</tr>", table)
    }
    own, classes, *given, ceiling = rows["mask_rcnn-small"]
    assert float(classes) - float(own) == pytest.approx(2)
    assert (given[1:], ceiling) == (["–", "–"], "93.0")
    assert float(given[0]) - float(own) == pytest.approx(10)
    assert rows["discriminative-small"][2:4] == ["–", "–"]


def test_what_can_be_done_with_one_threshold_is_a_table(study: Path) -> None:
    table = write_report(Board.read(study)).read_text().split("Put to use")[1].split("</table>")[0]
    assert table.count("<td>0.43</td>") == 3
    assert table.count("<td>4.0</td>") == 3, "800 detections on 200 photos"
    assert "<th>PQ</th><th>|DiC|</th><th>SBD</th>" in table
    assert table.count("<td>1.37</td><td>84.2</td>") == 3


def test_what_a_paradigm_lets_through_is_a_table(study: Path) -> None:
    table = write_report(Board.read(study)).read_text().split("What each paradigm lets through")[1].split("</table>")[0]
    assert table.count("<td>690</td><td>700</td><td>98.6</td>") == 3
    assert table.count("<td>0</td><td>0</td><td>–</td>") == 3


def test_runs_that_compared_boxes_alone_have_a_page(writer: Any) -> None:
    folder = writer("solov2-small")
    metrics = json.loads((folder / "metrics.json").read_text())
    kept = {name: value for name, value in metrics.items() if name not in ("segm", "errors", "strata")}
    (folder / "metrics.json").write_text(json.dumps({**kept, "per_class": {"bbox": metrics["per_class"]["bbox"]}}))
    for name in ("speed.json", None):
        html = write_report(Board.read(folder.parent)).read_text()
        assert "No trial has an AP yet." in html
        assert "<dd>3</dd>" in html, "the classes"
        if name:
            (folder / name).unlink()
