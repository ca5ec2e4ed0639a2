from __future__ import annotations

import re
from typing import Any

from maskbench.study.board import Board
from maskbench.study.findings import DRAWN, HUES, caution, finding
from maskbench.study.runs import read_runs


def say(folder: Any) -> str:
    return finding(Board.read(folder.parent).groups[0])


def test_one_seed_speaks_of_weights(writer: Any) -> None:
    writer("solov2-small")
    text = say(writer("discriminative-small"))
    assert text.startswith("solov2-small has the highest mask AP, 63.")
    assert "discriminative-small is the fastest, 7" in text
    assert text.endswith("Each method has one seed alone, so this is said of these weights, not of the methods.")


def test_seeds_speak_of_methods_and_of_doubt(writer: Any) -> None:
    for seed in (0, 1):
        writer("solov2-small", seed)
        folder = writer("mask_rcnn-small", seed)
    text = say(folder)
    assert "and is the fastest as well. Means over 2 seeds. The lead of" in text
    assert "lies beyond the two standard deviations together; no test was made of whether it is chance." in text


def test_a_method_with_one_seed_is_named(writer: Any) -> None:
    writer("solov2-small", 0)
    writer("solov2-small", 1)
    assert "mask_rcnn-small has one seed alone" in say(writer("mask_rcnn-small"))


def test_peers_of_the_best_are_named_with_their_speed(writer: Any) -> None:
    writer("solov2-small", found=0.81)
    writer("mask_rcnn-small", found=0.8)
    text = say(writer("discriminative-small", found=0.79))
    assert "discriminative-small (1.2 times as fast) can't be told from solov2-small." in text.replace(
        "mask_rcnn-small and ", ""
    )
    assert "mask_rcnn-small" in text.split("can't be told")[0]
    assert text.endswith("so this is said of these weights, not of the methods.")


def test_a_lead_that_is_more_than_chance_is_told_with_its_interval(writer: Any) -> None:
    writer("solov2-small", found=0.9)
    text = say(writer("mask_rcnn-small", found=0.5))
    assert re.search(
        r"The lead over mask_rcnn-small, \d\d\.\d, is more than chance \(95 %: \d\d\.\d to \d\d\.\d\)\.", text
    )


def test_one_method_has_nobody_to_beat(writer: Any) -> None:
    assert "solov2-small reaches a mask AP of 63." in say(writer("solov2-small"))


def test_a_speed_that_is_not_known_is_not_told(writer: Any) -> None:
    folder = writer("solov2-small")
    (folder / "speed.json").unlink()
    (writer("mask_rcnn-small") / "speed.json").unlink()
    assert "FPS" not in say(folder)


def test_a_speed_of_another_machine_is_not_told(writer: Any) -> None:
    writer("solov2-small", machine="Apple M3")
    writer("mask_rcnn-small")
    text = say(writer("discriminative-small"))
    assert text.startswith("solov2-small has the highest mask AP, 63.")
    assert "discriminative-small is the fastest, 7" in text
    assert text.count("FPS") == 1


def test_drawn_shapes_are_no_photographs(writer: Any) -> None:
    folder = writer("solov2-small")
    assert caution(read_runs(folder.parent)) == HUES
    folder = writer("mask_rcnn-small", data={"root": {"_target_": "maskbench.data.shapes.draw", "hue": "any"}})
    assert caution(read_runs(folder.parent)[:1]) == DRAWN
    folder = writer("discriminative-small", data={"root": "/data/coco"})
    assert caution(read_runs(folder.parent)[:1]) is None
