from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from logged import logged
from maskbench import train as verb
from maskbench.data.datamodule import CocoDataModule
from maskbench.data.fitting.rules import Fitted
from maskbench.data.shapes import draw
from maskbench.errors import ConfigError, DataError, RunError
from maskbench.methods.base import Segmenter
from maskbench.methods.solov2 import SOLOv2
from maskbench.runtime import training
from maskbench.runtime.checkpoints import read_checkpoint
from maskbench.runtime.history import read_rows
from maskbench.runtime.run_folder import read_json
from maskbench.structures import Batch
from maskbench.study import leaderboard
from maskbench.study.runs import read_runs
from maskbench.sweep.status import Status
from maskbench.train import train
from trained import TINY, call, run

__all__ = ["run"]


def test_a_run_folder_holds_every_number(run: Path) -> None:
    metrics = read_json(run / "metrics.json")
    assert metrics["method"] == "solov2-small"
    assert metrics["paradigm"] == "one-stage"
    assert (metrics["seed"], metrics["checkpoint"], metrics["split"]) == (0, "last", "test")
    assert (metrics["epochs"], metrics["images"]) == (2, 4)
    assert metrics["images_seen"] == 2 * 12  # 16 images, a quarter of them for tune
    assert set(metrics["per_class"]["segm"]) == {"disc", "rectangle", "triangle"}
    assert 0 <= metrics["segm"]["AP"] <= metrics["ceiling"]["segm"]["AP"] <= 1
    assert set(metrics["tune"]) == {"segm"}
    assert metrics["reach"]["a cell"]["of"] > 0
    assert read_json(run / "speed.json")["images"] == 2
    assert set(read_json(run / "fairness.json")) == {"footing", "operating_point", "method", "environment"}
    assert read_json(run / "fairness.json")["environment"]["fields"]["threads"] == 1
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt"}
    data = read_json(run / "data.json")
    assert (data["name"], data["images"]) == ("shapes", 16)
    assert (run / "predictions.json.gz").exists()
    assert Status.read(run).state == "done"


def test_photos_of_test_are_kept_with_what_is_on_them(run: Path) -> None:
    kept = json.loads(gzip.decompress((run / "thumbnails" / "photos.json.gz").read_bytes()))
    assert {f"{image_id}.jpg" for image_id in kept["photos"]} < {path.name for path in (run / "thumbnails").iterdir()}
    assert len(kept["photos"]) == 4
    for photo in kept["photos"].values():
        assert photo["size"] == [64, 64]
        assert all(outline["path"].startswith("M") for outline in photo["truth"])
        assert all(outline["score"] >= kept["score"] for outline in photo["found"])


def test_the_history_has_a_row_an_epoch(run: Path) -> None:
    rows = read_rows(run / "history.csv")
    columns = ("epoch", "step", "images", "minutes", "lr", "images_per_second", "memory_mb")
    assert tuple(rows[0])[:7] == columns
    assert {"train/loss", "train/class", "train/mask", "tune/AP", "tune/AP50"} <= set(rows[0])
    assert [row["images"] for row in rows] == ["12", "24"]
    parts = float(rows[0]["train/class"]) + float(rows[0]["train/mask"])
    assert float(rows[0]["train/loss"]) == pytest.approx(parts, rel=1e-4)


def test_wandb_files_lie_in_the_study_and_are_named_after_the_run(run: Path) -> None:
    (folder,) = (run.parent / "wandb").glob(f"offline-run-*-trained-{run.name}")
    assert list((folder / "files/media/images/tune").glob("photos_*.png"))
    assert list((folder / "files/media/images/mask/tune").glob("*.mask.png"))


def test_ap_on_tune_is_logged_with_what_it_took_until_then(run: Path) -> None:
    (folder,) = (run.parent / "wandb").glob(f"offline-run-*-trained-{run.name}")
    rows = [row for row in logged(folder).history if "tune/AP" in row]
    assert [row["images"] for row in rows] == [12, 24, 24]  # after each epoch, and as it is judged
    assert 0 < rows[0]["hours"] < rows[1]["hours"] <= rows[2]["hours"] < 1
    assert rows[1]["tune/AP"] == pytest.approx(rows[2]["tune/AP"], abs=1e-6)


def test_a_finished_run_is_left_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    found = call(train, *TINY, f"runs={run.parents[1]}", "study=trained")
    metrics = read_json(run / "metrics.json")
    assert found == {"run": str(run), **{name: value for name, value in metrics.items() if name != "per_class"}}
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert "done already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("solov2", [], "goes on after epoch 1\n"),
        ("mask_rcnn", [], "goes on after epoch 1\n"),  # which draws while it trains
        ("mask_rcnn", ["checkpoint_minutes=0"], "goes on after epoch 1 and 1 batches"),
    ],
)
def test_an_interrupted_run_keeps_what_it_has_and_goes_on(
    method: str,
    settings: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = (f"method=small/{method}", *TINY[1:], f"runs={tmp_path}", "logger=none", "speed.enabled=false", *settings)
    whole = Path(call(train, *line, "study=whole")["run"])
    step, calls = Segmenter.training_step, 0

    def interrupted(self: Segmenter, batch: Batch, batch_idx: int) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:  # in the middle of the second epoch of two steps
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Segmenter, "training_step", interrupted)
    # Lightning leaves Ctrl-C ignored for the process that is about to end
    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt, match="the same command again goes on"):
        call(train, *line)
    (folder,) = (tmp_path / "try").iterdir()
    assert folder.name == whole.name
    assert (Status.read(folder).state, Status.read(folder).reason) == ("failed", "interrupted")

    monkeypatch.undo()
    metrics = call(train, *line)
    assert told in capsys.readouterr().err
    assert (metrics["epochs"], metrics["images_seen"], Status.read(folder).attempts) == (2, 24, 2)
    rows, of_whole = (read_rows(path / "history.csv") for path in (folder, whole))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [row["train/loss"] for row in rows] == [row["train/loss"] for row in of_whole]
    trained, resumed = (read_checkpoint(path / "checkpoints/last.ckpt")["state_dict"] for path in (whole, folder))
    assert all(torch.equal(trained[name], resumed[name]) for name in trained)


def test_ctrl_c_while_it_is_judged_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: SOLOv2, batch: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(SOLOv2, "ceiling", interrupted)
    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        call(train, *TINY, "trainer.max_epochs=1", f"runs={tmp_path}", "logger=none")
    (folder,) = (tmp_path / "try").iterdir()
    assert Status.read(folder).reason == "interrupted"


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_epoch(tmp_path: Path) -> None:
    """SIGKILL leaves no time to say anything: what stands on the disc has to be enough."""
    settings = [*TINY, "trainer.max_epochs=40", "logger=none", "speed.enabled=false", f"runs={tmp_path}"]
    command = [sys.executable, "-m", "maskbench.train", *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("try/*/checkpoints/previous.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    (folder,) = (tmp_path / "try").iterdir()
    assert process.returncode == -signal.SIGKILL
    assert (Status.read(folder).state, Status.read(folder).cut(folder)) == ("running", True)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "goes on after epoch" in ended.stderr
    assert [row["epoch"] for row in read_rows(folder / "history.csv")] == [str(epoch) for epoch in range(40)]
    assert (Status.read(folder).state, Status.read(folder).attempts) == ("done", 2)


def test_the_best_weights_are_marked_as_chosen_on_tune(tmp_path: Path) -> None:
    line = (*TINY, "checkpoint=best", "trainer.max_epochs=1", f"runs={tmp_path}", "logger=none", "speed.enabled=false")
    metrics = call(train, *line)
    assert metrics["checkpoint"] == "best (selected on tune)"
    assert (Path(metrics["run"]) / "checkpoints/best.ckpt").exists()
    assert not (Path(metrics["run"]) / "speed.json").exists()


def test_without_a_tune_split_it_trains_without_ap_on_it(tmp_path: Path) -> None:
    settings = ("data.tune_share=0", "trainer.max_epochs=1", "speed.enabled=false", "logger=none", f"runs={tmp_path}")
    metrics = call(train, *TINY, *settings)
    assert metrics["images_seen"] == 16
    assert not any(name.startswith("tune") for name in read_rows(Path(metrics["run"]) / "history.csv")[0])


def test_a_photo_that_cannot_be_read_ends_a_training_or_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(cache=tmp_path / "cache", images=16, val_images=4, size=64)
    line = [*TINY, "data.tune_share=0", "trainer.max_epochs=1", "speed.enabled=false", "logger=none"]
    line += [f"data.root.cache={tmp_path}/cache", f"runs={tmp_path}"]
    broken = sorted((root / "images").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:3000])
    with pytest.raises(DataError, match=f"^{broken}: is broken"):
        call(train, *line)
    (folder,) = (tmp_path / "try").iterdir()
    assert Status.read(folder).reason.startswith(f"DataError: {broken}: is broken")
    assert Status.read(folder).again == "no"
    metrics = call(train, *line, "data.unreadable=skip")
    assert Path(metrics["run"]) == folder, "which photos are skipped is no setting of the method"
    assert metrics["unreadable"] == {"photos": 1, "of": 16, "first": [broken.name]}
    assert metrics["images_seen"] == 16
    assert f"{broken}: can't be read, and nothing stands in its place" in capsys.readouterr().err
    (group,) = leaderboard.group(leaderboard.tabulate(read_runs(tmp_path / "try")))
    assert "‖" in leaderboard.marks(group.methods.iloc[0])
    assert "‖" in {mark for mark, _ in leaderboard.remarks(group)}


def test_a_folder_with_a_photo_that_cannot_be_read_is_trained_on_where_it_is_to_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = draw(cache=tmp_path / "cache", images=16, val_images=4, size=64)
    line = [word for word in TINY if not word.startswith("data.root.")] + ["data=coco", f"data.root={root}"]
    line += ["data.tune_share=0", "trainer.max_epochs=1", "speed.enabled=false", "logger=none", f"runs={tmp_path}"]
    broken = sorted((root / "images").iterdir())[4]
    broken.write_bytes(b"")
    with pytest.raises(DataError, match=f"photo-empty: images/{broken.name}"):
        call(train, *line)
    assert call(train, *line, "data.unreadable=skip")["unreadable"] == {"photos": 1, "of": 16, "first": [broken.name]}
    assert "the data have warnings\n  photo-skipped: " in capsys.readouterr().err


def test_a_failure_stands_in_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: SOLOv2, batch: Any) -> dict[str, torch.Tensor]:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(SOLOv2, "loss", broken)
    with pytest.raises(RuntimeError, match="no memory left"):
        call(train, *TINY, f"runs={tmp_path}", "logger=none")
    (folder,) = (tmp_path / "try").iterdir()
    assert Status.read(folder).reason == "RuntimeError: no memory left"


def test_wandb_that_is_down_when_all_is_written_fails_no_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "trained" / run.name))
    (folder / "metrics.json").unlink()  # so it is not done: it is judged again, after its last epoch

    def down(*_: object) -> None:
        raise ConnectionError("no route to W&B")

    monkeypatch.setattr(training, "summarise", down)
    line = (*TINY, f"runs={tmp_path}", "study=trained", "speed.enabled=false")
    with pytest.raises(ConnectionError):
        call(train, *line)
    assert Status.finished(folder).attempts == 2
    assert read_json(folder / "metrics.json") == read_json(run / "metrics.json")
    call(train, *line)
    assert "done already" in capsys.readouterr().err


def test_two_processes_never_train_one_run(run: Path, tmp_path: Path) -> None:
    Status(pid=1, host="elsewhere").write(tmp_path / "trained" / run.name)
    with pytest.raises(RunError, match="process 1 on elsewhere is training it"):
        call(train, *TINY, f"runs={tmp_path}", "study=trained")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["checkpoint=worst"], "checkpoint=worst: expected one of last, best"),
        (["checkpoint=best", "data.tune_share=0"], "that split is empty: set data.tune_share above 0"),
        (["checkpoint=best", "trainer.check_val_every_n_epoch=3"], "none of 2 epochs has one: set it to 2 or less"),
        (["evaluation.iou_types=[mask]"], r'iou_types=\["mask"\]: expected a list, each one of segm, bbox'),
        (["evaluation.iou_types=[]"], "expected one or more of segm, bbox"),
        (["trainer.max_epochs=x"], "trainer.max_epochs=x: expected a whole number"),
        (["speed.images=0"], r"speed\.images=0: expected at least 1"),
        (["+trainer.enable_progress_bar=false"], "enable_progress_bar of lightning.Trainer: .* leave it out"),
        (["+trainer.enable_checkpointing=true"], "enable_checkpointing of lightning.Trainer: .* leave it out"),
        (["trainer.precision=64-true"], "precision is one of 32-true, 16-mixed, bf16-mixed, found '64-true'"),
    ],
)
def test_a_wrong_choice_is_told_before_training(tmp_path: Path, settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call(train, *TINY, *settings, f"runs={tmp_path}", "logger=none")
    assert not list(tmp_path.glob("*/*/checkpoints"))
    assert not list(tmp_path.iterdir()) or settings == ["checkpoint=best", "data.tune_share=0"]  # which data tell


def test_a_fitted_value_that_a_method_refuses_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = (Fitted("method.grids", [1, 2], "a rule that is wrong"),)
    monkeypatch.setattr("maskbench.runtime.trial.fitted_settings", lambda *_: refused)
    monkeypatch.setattr(CocoDataModule, "setup", None)
    with pytest.raises(ConfigError, match="one grid and one range per level"):
        call(train, *TINY, "fit=true", f"runs={tmp_path}", "logger=none")


def test_of_several_processes_the_first_alone_rehearses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(cfg: object) -> None:
        raise ConfigError("rehearsed")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("maskbench.runtime.rehearsal.rehearse", told)
    monkeypatch.setattr(training, "train", stopped)
    with pytest.raises(ConfigError, match="rehearsed"):
        call(train, *TINY, f"runs={tmp_path}", "logger=none")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(KeyboardInterrupt):
        call(train, *TINY, f"runs={tmp_path}", "logger=none")


def test_the_best_weights_are_not_chosen_where_there_is_nothing_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CocoDataModule, "objects", lambda *_: 0)
    with pytest.raises(ConfigError, match="no object is in any of its 4 photos: raise"):
        call(train, *TINY, "checkpoint=best", f"runs={tmp_path}", "logger=none")


@pytest.mark.parametrize(
    ("device", "there", "told"), [("cpu", True, True), ("cpu", False, False), ("cuda", True, False)]
)
def test_an_idle_gpu_is_told(
    device: str, there: bool, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    training._tell_of_gpu(torch.device(device))
    assert ("trainer.accelerator=auto takes it" in capsys.readouterr().err) is told


@pytest.mark.parametrize("limit", [1, 100])
def test_more_objects_than_may_be_found_are_told(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        call(train, *TINY, f"evaluation.point.max_instances={limit}", f"runs={tmp_path}", "logger=none")
    (folder,) = (tmp_path / "try").iterdir()
    most = read_json(folder / "data.json")["most_per_image"]
    assert 1 < most < 100
    told = capsys.readouterr().err
    assert (f"up to {most} objects, but evaluation.point.max_instances=1:" in told) == (limit == 1)


def test_the_command_line_ends_with_json_and_tells_errors_without_traceback(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train", *TINY, f"runs={run.parents[1]}", "study=trained"])
    verb.main()
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run"] == str(run)

    monkeypatch.setattr("sys.argv", ["train", "data=coco", f"data.root={run}/nowhere", f"runs={run.parents[1]}"])
    with pytest.raises(SystemExit) as stopped:
        verb.main()
    assert stopped.value.code == 1
    told = capsys.readouterr().err
    assert "nowhere" in told
    assert "Traceback" not in told
