from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from maskbench.sweep.watch import Watch

HEADER = "epoch,step,images,minutes,images_per_second,tune/AP\n"


def watch(study: Path, names: str, terminal: bool = False, height: int = 40) -> tuple[Watch, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, height=height, _environ={"TERM": "xterm"})
    for name in names:
        (study / name).mkdir(exist_ok=True)
    return Watch.over([(name, study / name) for name in names], slots=1, console=console), text


def write(folder: Path, epochs: int, total: int | None = 4) -> None:
    rows = "".join(f"{epoch},{epoch * 10},{epoch * 80},{epoch},251.4,{epoch / 10}\n" for epoch in range(1, epochs + 1))
    (folder / "history.csv").write_text(HEADER + rows)
    (folder / "config.yaml").write_text(f"trainer:\n  max_epochs: {total}\n" if total else "{}\n")


def test_a_log_file_gets_a_line_a_change(tmp_path: Path) -> None:
    seen, text = watch(tmp_path, "ab")
    with seen:
        seen.started("a")
        write(tmp_path / "a", 2)
        seen.tick()
        seen.tick()
        seen.finished("a", "done")
    lines = [line.split("  ", 1)[1] for line in text.getvalue().splitlines()]
    assert lines == ["a  started", "a  epoch 2/4 AP 20.0 251 images/s", "a  done 0:00"]
    assert seen.summary() == "1 of 2 done · 1 waiting"


def test_an_epoch_without_validation_has_no_ap_of_an_earlier_one(tmp_path: Path) -> None:
    seen, text = watch(tmp_path, "a")
    with seen:
        seen.started("a")
        write(tmp_path / "a", 2)
        with (tmp_path / "a" / "history.csv").open("a") as file:
            file.write("3,30,240,3,251.4,\n")
        seen.tick()
    assert "a  epoch 3/4 251 images/s\n" in text.getvalue()
    assert seen.rows["a"].progress.ap == 0.2


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ('{"epochs": 9}', "2/9"),
        ('{"epochs": 9', "2/4"),
        ("[9]", "2/4"),
        ("[" * 100_000, "2/4"),
        ('{"epochs": null}', "2 "),
    ],
)
def test_the_plan_of_a_protocol_says_how_many_epochs_there_are(tmp_path: Path, plan: str, told: str) -> None:
    """Where it is whole; one without epochs goes by steps."""
    seen, text = watch(tmp_path, "a")
    with seen:
        seen.started("a")
        write(tmp_path / "a", 2)
        (tmp_path / "a" / "plan.json").write_text(plan)
        seen.tick()
    assert f"a  epoch {told}" in text.getvalue()


def test_the_time_left_follows_from_the_pace(tmp_path: Path) -> None:
    seen, _ = watch(tmp_path, "abc")
    seen.started("a")
    assert seen.summary() == "0 of 3 done · 1 running · 2 waiting"
    seen.rows["a"].began = time.monotonic() - 60
    write(tmp_path / "a", 2)
    seen.tick()
    # Half of the training took a minute: one more for this trial, two for each of the two that wait.
    assert seen.summary() == "0 of 3 done · 1 running · 2 waiting · about 5:00 left"


def test_what_an_earlier_attempt_did_is_no_part_of_the_pace(tmp_path: Path) -> None:
    seen, _ = watch(tmp_path, "ab")
    write(tmp_path / "a", 2)
    os.utime(tmp_path / "a" / "history.csv", (1, 1))
    seen.started("a")
    seen.rows["a"].seconds = 60.0
    write(tmp_path / "a", 3)
    seen.tick()
    # One epoch of four took a minute: one is left, and the trial that waits has four.
    assert seen.summary() == "0 of 2 done · 1 running · 1 waiting · about 5:00 left"


def test_an_epoch_that_is_trained_again_is_this_attempts(tmp_path: Path) -> None:
    seen, _ = watch(tmp_path, "a")
    write(tmp_path / "a", 3)
    seen.started("a")
    write(tmp_path / "a", 2)  # the last checkpoint was damaged
    assert seen.rows["a"].look()
    assert seen.rows["a"].left is None
    write(tmp_path / "a", 3)
    os.utime(tmp_path / "a" / "history.csv", (time.time() + 9, time.time() + 9))
    seen.rows["a"].seconds = 60.0
    seen.rows["a"].look()
    assert seen.rows["a"].left == pytest.approx(60)


def test_what_an_earlier_attempt_left_is_no_progress(tmp_path: Path) -> None:
    seen, _ = watch(tmp_path, "a")
    write(tmp_path / "a", 3)
    os.utime(tmp_path / "a" / "history.csv", (1, 1))
    seen.started("a")
    seen.tick()
    assert seen.rows["a"].progress is None


def test_without_a_plan_there_is_no_time_left(tmp_path: Path) -> None:
    seen, _ = watch(tmp_path, "a")
    seen.started("a")
    write(tmp_path / "a", 3, total=None)
    seen.tick()
    found = seen.rows["a"].progress
    assert found is not None
    assert (found.epoch, found.share, seen.rows["a"].left) == ("3", None, None)


def test_a_terminal_shows_a_table(tmp_path: Path) -> None:
    seen, text = watch(tmp_path, "ab", terminal=True)
    with seen:
        seen.started("a")
        write(tmp_path / "a", 1)
        seen.tick()
        seen.finished("b", "failed", "boom")
    assert "● running" in text.getvalue()
    assert "✗ failed" in text.getvalue()
    assert "10.0" in text.getvalue()


def test_what_is_told_at_once_is_drawn_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, text = watch(tmp_path, "abcdefghijkl", terminal=True)
    clock = iter(range(100_000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 1000)
    with seen:
        for name in seen.rows:
            seen.finished(name, "kept")
    assert text.getvalue().count("Trial") <= 2
    assert "12 of 12 done" in text.getvalue()


def test_a_small_screen_shows_what_matters(tmp_path: Path) -> None:
    seen, text = watch(tmp_path, "abcdefghijkl", terminal=True, height=9)
    with seen:
        for name in "abcdef":
            seen.finished(name, "done")
        seen.finished("k", "failed")
        seen.started("l")
    last = text.getvalue().rsplit("Trial", 1)[1]
    assert "✗ failed" in last
    assert "● running" in last
    assert "7 more not shown" in last
