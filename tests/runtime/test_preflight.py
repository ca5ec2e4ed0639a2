"""The look at the data before a training: what it stops, what it tells, and how often it is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from data.zoo import Folder, good
from maskbench import train
from maskbench.data.preflight.layout import Layout
from maskbench.data.preflight.survey import Survey
from maskbench.errors import ConfigError, DataError
from maskbench.runtime import launcher, preflight, trial
from maskbench.runtime.preflight import identify_checked
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Outcome, Trial
from trained import TINY, composed

CHOICES = {"method": "small/solov2", "data": "coco"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return good(tmp_path / "set")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Layout]:
    """What was looked through; with nothing remembered from before."""
    taken: list[Layout] = []
    whole = preflight.survey

    def counted(plan: Layout) -> Survey:
        taken.append(plan)
        return whole(plan)

    monkeypatch.setattr(preflight, "survey", counted)
    monkeypatch.setenv("MASKBENCH_CACHE", str(tmp_path / "cache"))
    preflight._tell.cache_clear()
    return taken


def words(folder: Folder, *overrides: str) -> list[str]:
    folder.write()
    named = ["data=coco", f"data.root={folder.root}", "data.test_annotations=annotations/instances_test.json"]
    return [*named, f"runs={folder.root.parent / 'runs'}", *overrides]


def config(folder: Folder, *overrides: str) -> DictConfig:
    return composed("train", words(folder, *overrides))


def broken(folder: Folder) -> Folder:
    """Readable, and wrong in two ways."""
    folder.test["images"].append({**folder.image, "id": 77})
    folder.object["iscrowd"] = "0"
    folder.painted["area"] *= 3
    return folder


def test_good_data_are_looked_through_once(
    folder: Folder, looks: list[Layout], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        identify_checked(config(folder, f"seed={seed}"), CHOICES)
    preflight._tell.cache_clear()  # another process
    identify_checked(config(folder, "preflight=warn"), CHOICES)
    assert len(looks) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("Looking through")


def test_other_data_and_another_input_are_looked_through_anew(folder: Folder, looks: list[Layout]) -> None:
    identify_checked(config(folder), CHOICES)
    identify_checked(config(folder, "transforms.eval.short=80", "evaluation=crowded"), CHOICES)
    folder.object["bbox"][0] += 1
    trial._content.cache_clear()  # another process
    identify_checked(config(folder), CHOICES)
    assert [(plan.short, plan.max_instances) for plan in looks] == [(None, 100), (80, 400), (None, 100)]


def test_settings_that_are_fitted_are_what_is_looked_with(folder: Folder, looks: list[Layout]) -> None:
    trial = identify_checked(config(folder, "fit=true", "preflight=warn"), CHOICES)
    assert [plan.short for plan in looks] == [trial.cfg.transforms.eval.short] != [None]


def test_what_is_set_apart_for_testing_is_looked_at_with_the_rest(folder: Folder, looks: list[Layout]) -> None:
    name = "annotations/instances_train.json"
    identify_checked(config(folder, f"data.test_annotations={name}", "data.test_share=0.5"), CHOICES)
    assert [[split.name for split in plan.splits] for plan in looks] == [["train"]]


def test_errors_stop_a_training_and_are_told_together(folder: Folder, looks: list[Layout]) -> None:
    with pytest.raises(DataError) as raised:
        identify_checked(config(broken(folder)), CHOICES)
    text = str(raised.value)
    assert text.startswith(f"{folder.root}: the data have errors\n")
    assert "crowd-form: annotations/instances_train.json (annotation 100): `iscrowd` is '0'; write 0 for" in text
    assert "leak-file: images/train_1.png (image 77 of test): is images/train_1.png (image 1) of train; " in text
    assert "area-off" not in text
    assert text.endswith("preflight=warn trains all the same")
    page = Path(text.rpartition("\n")[2].partition(" shows")[0])
    assert "iscrowd" in page.read_text()
    assert json.loads(page.with_name("preflight.json").read_text())["counts"] == {"error": 2, "warning": 1, "note": 1}


def test_errors_and_warnings_are_told_where_nothing_is_to_stop(
    folder: Folder, looks: list[Layout], capsys: pytest.CaptureFixture[str]
) -> None:
    run = identify_checked(config(broken(folder), "preflight=warn"), CHOICES).folder
    told = capsys.readouterr().err
    assert "crowd-form: " in told
    assert "the data have warnings\n  area-off: " in told
    for mode in ("off", "false"):
        assert identify_checked(config(folder, f"preflight={mode}"), CHOICES).folder == run
    assert len(looks) == 1


def test_what_cannot_be_read_at_all_is_told_in_full(folder: Folder, looks: list[Layout]) -> None:
    del folder.image["width"]
    folder.photo("test").unlink()
    for mode, told in (("fail", ["field-missing", "photo-missing", "index.html"]), ("off", ["lacks `width`"])):
        with pytest.raises(DataError) as raised:
            identify_checked(config(folder, f"preflight={mode}"), CHOICES)
        assert [word for word in told if word not in str(raised.value)] == []
    assert len(looks) == 1


def test_a_folder_that_is_not_there_is_told_as_ever(folder: Folder, looks: list[Layout]) -> None:
    with pytest.raises(DataError, match="no such folder"):
        identify_checked(config(folder, f"data.root={folder.root}/nowhere"), CHOICES)
    assert not looks


def test_drawn_data_and_trials_that_are_done_are_not_looked_through(folder: Folder, looks: list[Layout]) -> None:
    identify_checked(composed("train", list(TINY)), {**CHOICES, "data": "shapes"})
    run = identify_checked(config(broken(folder), "preflight=off"), CHOICES).folder
    Status.begin(run).done().write(run)
    (run / "metrics.json").write_text("{}")
    identify_checked(config(folder), CHOICES)
    assert not looks


def test_one_of_several_processes_of_a_training_looks(
    folder: Folder, looks: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    identify_checked(config(broken(folder)), CHOICES)
    assert not looks


def test_an_unknown_mode_is_refused(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="preflight=sometimes: expected fail, warn, off"):
        identify_checked(config(folder, "preflight=sometimes"), CHOICES)


def test_a_cache_that_cannot_be_written_costs_the_page(
    folder: Folder, looks: list[Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.root.parent / "file").touch()
    monkeypatch.setenv("MASKBENCH_CACHE", str(folder.root.parent / "file"))
    with pytest.raises(DataError, match=r"python -m maskbench\.preflight shows them"):
        identify_checked(config(broken(folder)), CHOICES)


# Sweeps ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that a sweep would have started."""
    trials: list[Trial] = []

    def pretend(given: list[Trial], engine: Any, **_: object) -> list[Outcome]:
        trials.extend(given)
        return [Outcome(trial, "done") for trial in given]

    monkeypatch.setattr(launcher, "run", pretend)
    return trials


def sweep(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr("sys.argv", ["train", "-m", *overrides])
    train.main()


def test_a_sweep_looks_once_and_its_trials_never(
    folder: Folder, looks: list[Layout], started: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(monkeypatch, *words(folder), "method=small/solov2,small/solo", "seed=0,1,2", "preflight=warn")
    assert len(started) == 6
    assert len(looks) == 1
    assert all([word for word in trial.command if "preflight" in word][-1] == "preflight=off" for trial in started)


def test_a_sweep_of_broken_data_starts_no_trial(
    folder: Folder,
    looks: list[Layout],
    started: list[Trial],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep(monkeypatch, *words(broken(folder)), "seed=0,1,2")
    assert (stopped.value.code, started, len(looks)) == (1, [], 1)
    assert "leak-file" in capsys.readouterr().err
