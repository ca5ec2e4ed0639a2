from __future__ import annotations

from pathlib import Path

import pytest
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from rich.console import Console

from maskbench.runtime import progress
from maskbench.runtime.compose import build, make
from maskbench.runtime.console import show
from maskbench.runtime.progress import Bar, Lines, shown
from maskbench.runtime.quiet import hush
from trained import QUIET, TINY, composed


@pytest.mark.parametrize(("terminal", "kind"), [(True, Bar), (False, Lines)])
def test_a_terminal_gets_a_bar_and_a_log_gets_lines(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: type[Callback]
) -> None:
    monkeypatch.setattr(progress, "console", Console(force_terminal=terminal))
    first = Callback()
    arguments = shown(first)
    assert arguments["callbacks"][0] is first
    assert isinstance(arguments["callbacks"][1], kind)
    assert arguments["enable_progress_bar"] == terminal


class Validated(BoringModel):
    """Logs an AP whenever it is validated."""

    def on_validation_epoch_end(self) -> None:
        self.log("tune/AP", 0.5)


def test_a_line_tells_the_ap_of_its_own_epoch_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hush()
    few = {"limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    every = {"max_epochs": 3, "check_val_every_n_epoch": 2}
    Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[Lines()], **QUIET, **few, **every).fit(Validated())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert ["AP 50" in line for line in lines] == [False, True, False]


def test_a_long_test_tells_a_log_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hush()
    lines = {}
    for seconds in (0.0, 3600.0):
        monkeypatch.setattr(progress, "SECONDS", seconds)
        trainer = Trainer(
            accelerator="cpu", default_root_dir=tmp_path, callbacks=[Lines()], limit_test_batches=2, **QUIET
        )
        trainer.test(BoringModel(), verbose=False)
        lines[seconds] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("judged")]
    assert lines == {0.0: ["judged: batch 1/2", "judged: batch 2/2"], 3600.0: []}


def test_a_table_in_a_log_is_as_wide_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show("Widths", ["name", *(f"column {number}" for number in range(20))], [["a", *("0.123456" for _ in range(20))]])
    assert capsys.readouterr().err.count("0.123456") == 20


def test_the_bar_tells_loss_and_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = composed("train", [*TINY, "trainer.max_epochs=1"])
    data, method = build(cfg)
    bar = Bar()
    hush()
    quiet = {"logger": False, "enable_checkpointing": False, "default_root_dir": tmp_path, "limit_val_batches": 0}
    trainer = make(cfg.trainer, callbacks=[bar], **quiet)
    trainer.fit(method, datamodule=data)
    numbers = bar.get_metrics(trainer, method)
    assert set(numbers) == {"loss", "images/s"}
    assert numbers["images/s"] > 0
    assert "loss:" in capsys.readouterr().err
