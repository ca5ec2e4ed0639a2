from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

import fake_slurm
from maskbench import train
from maskbench.errors import ConfigError
from maskbench.runtime import launcher
from maskbench.runtime.trial import identify
from maskbench.sweep.engine import Engine
from maskbench.sweep.identity import parse_trial_name
from maskbench.sweep.pool import Pool
from maskbench.sweep.ray import Ray
from maskbench.sweep.slurm import Slurm
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Outcome, Trial
from trained import TINY, composed

CHOICES = {"method": "small/solov2", "data": "shapes"}
SEEDS = (*TINY, "seed=0,1", "study=swept")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """The trials that a sweep would have started; the one with seed 1 fails."""
    trials: list[Trial] = []

    def pretend(given: list[Trial], engine: Pool, **_: object) -> list[Outcome]:
        trials.extend(given)
        assert (engine.slots, engine.threads) == (3, 1)
        states = ["failed" if "seed=1" in trial.command else "done" for trial in given]
        return [Outcome(trial, state) for trial, state in zip(given, states, strict=True)]

    monkeypatch.setattr(launcher, "run", pretend)
    return trials


def sweep(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr("sys.argv", ["train", "-m", *overrides, "hydra.launcher.slots=3"])
    train.main()


def test_a_sweep_over_fitted_settings_names_its_trials_as_they_will_themselves(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TINY, "method.grids=[8,6,5,4,3]", f"runs={tmp_path}", "study=fitted"]
    sweep(monkeypatch, *words, "fit=false,true")
    assert [trial.name for trial in started] == [
        identify(composed("train", [*words, f"fit={fit}"]), CHOICES, words).folder.name for fit in ("false", "true")
    ]
    assert started[0].name != started[1].name


def test_a_sweep_is_single_runs_in_processes_of_their_own(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep(monkeypatch, *SEEDS, f"runs={tmp_path}")
    assert stopped.value.code == launcher.TRIALS_FAILED
    assert [trial.command[:3] for trial in started] == [[sys.executable, "-m", "maskbench.train"]] * 2
    for seed, trial in enumerate(started):
        assert f"seed={seed}" in trial.command
        assert {"method=small/solov2", "study=swept", "speed.enabled=false"} <= set(trial.command)
        assert trial.folder == tmp_path / "swept" / trial.name
        assert parse_trial_name(trial.name).seed == seed
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == {
        "study": str(tmp_path / "swept"),
        "done": [started[0].name],
        "kept": [],
        "failed": [started[1].name],
    }
    assert {path.name for path in (tmp_path / "swept").iterdir()} == {"multirun.yaml"}


def test_two_ways_to_say_the_same_are_one_trial(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(monkeypatch, *TINY, "optim.warmup=0.1,0.10", f"runs={tmp_path}")
    assert len(started) == 1


def test_combinations_are_composed_once_and_not_for_every_seed(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the trials that each would be by itself, in the order of a nested loop."""
    composing: list[list[str]] = []
    whole = ConfigLoaderImpl.load_sweep_config

    def counted(loader: ConfigLoaderImpl, master: DictConfig, overrides: list[str]) -> DictConfig:
        composing.append(overrides)
        return whole(loader, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    common = [*TINY, "study=swept", f"runs={tmp_path}"]
    with pytest.raises(SystemExit):  # one has the seed 1, and fails
        sweep(monkeypatch, *common, "seed=0,1,2", "optim.warmup=0.1,0.2")
    assert len(composing) == 2
    alone = [
        identify(composed("train", [*common, f"seed={seed}", f"optim.warmup={warmup}"]), CHOICES).folder
        for seed in (0, 1, 2)
        for warmup in (0.1, 0.2)
    ]
    assert [trial.folder for trial in started] == alone
    assert {"seed=2", "optim.warmup=0.2"} <= set(started[-1].command)


def test_a_range_is_no_list_of_values(
    started: list[Trial], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        sweep(monkeypatch, *TINY, "optim.warmup=interval(0,1)")
    assert not started
    assert "that is a range" in " ".join(capsys.readouterr().err.split())


def test_a_setting_of_swept_methods_may_be_null(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the default method has no place for, too."""
    swept = "method=small/discriminative,small/flow_field"
    sweep(monkeypatch, *TINY[1:], swept, "method.score=null", f"runs={tmp_path}")
    assert [parse_trial_name(trial.name).method for trial in started] == ["discriminative-small", "flow_field-small"]
    assert all("method.score=null" in trial.command for trial in started)


def test_what_is_swept_over_may_stand_in_the_config(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(monkeypatch, *TINY, f"runs={tmp_path}", "+hydra.sweeper.params.checkpoint='last,best'")
    assert [word for trial in started for word in trial.command if "checkpoint=" in word] == [
        "checkpoint=last",
        "checkpoint=best",
    ]


@pytest.mark.parametrize("wrong", ["seed=0,1 optim.nothing=1", "method=small/solov3,small/solo"])
def test_what_cant_be_composed_stops_a_sweep_before_it_starts(
    started: list[Trial],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep(monkeypatch, *TINY[1:], *wrong.split(), f"runs={tmp_path}")
    assert stopped.value.code == 1
    assert not started
    assert "there is no" in capsys.readouterr().err


def test_one_trial_in_two_studies_is_two(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(monkeypatch, *TINY, "study=a,b", f"runs={tmp_path}")
    assert [trial.folder.parent for trial in started] == [tmp_path / "a", tmp_path / "b"]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["study"] == str(tmp_path)
    assert found["done"] == [f"{study}/{started[0].folder.name}" for study in "ab"]


@pytest.mark.parametrize(
    ("setting", "told"), [("threads=2", "hydra.launcher.threads=2"), ("speed.enabled=true", "benchmark study=DIR")]
)
def test_a_setting_that_a_sweep_would_not_heed_is_refused(
    started: list[Trial],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    told: str,
) -> None:
    with pytest.raises(SystemExit):
        sweep(monkeypatch, *TINY, setting, f"runs={tmp_path}")
    assert not started
    assert told in " ".join(capsys.readouterr().err.split())


def test_somebody_elses_configs_are_passed_on(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    sweep(monkeypatch, *TINY, f"runs={tmp_path}", f"hydra.searchpath=[file://{tmp_path}/own]")
    assert f"hydra.searchpath=[file://{tmp_path}/own]" in started[0].command


def test_an_error_in_the_data_stops_a_sweep_before_it_starts(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep(monkeypatch, "data=coco", f"data.root={tmp_path}", "seed=0,1", f"runs={tmp_path}")
    assert stopped.value.code == 1
    assert not started
    assert "instances_train.json" in capsys.readouterr().err


def test_slots_are_the_cores_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    cpu = [OmegaConf.create({"accelerator": "cpu", "devices": 1})]
    monkeypatch.setattr(launcher, "visible_gpus", lambda: ["0"])
    assert launcher.PoolLauncher().places(cpu) == (8, [])
    assert launcher.PoolLauncher(threads=3).places(cpu) == (2, [])
    assert launcher.PoolLauncher(threads=16).places(cpu) == (1, [])
    assert launcher.PoolLauncher(slots=5, threads=3).places(cpu) == (5, [])


@pytest.mark.parametrize("name", ["slots", "threads", "gpus"])
def test_there_is_no_less_than_one_of_anything(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{name} is at least 1, found 0"):
        launcher.PoolLauncher(**{name: 0})


def test_what_a_launcher_cannot_take_is_told_in_a_line(
    started: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        sweep(monkeypatch, *SEEDS, f"runs={tmp_path}", "hydra.launcher.retries=-1")
    assert capsys.readouterr().err == "hydra.launcher.retries is at least 0, found -1\n"


def on(accelerator: str, devices: Any) -> DictConfig:
    return OmegaConf.create({"accelerator": accelerator, "devices": devices})


@pytest.mark.parametrize("devices", [2, "2", [0, 1], "0,1"])
def test_devices_are_counted_however_they_are_named(monkeypatch: pytest.MonkeyPatch, devices: Any) -> None:
    monkeypatch.setattr(launcher, "visible_gpus", lambda: ["4", "5", "6", "7"])
    assert launcher.PoolLauncher().places([on("gpu", devices)])[0] == 2
    with pytest.raises(ConfigError, match=r"3 trials at once of trainer\.devices=2 take 6 GPUs, but there are 4"):
        launcher.PoolLauncher(slots=3).places([on("gpu", devices)])
    with pytest.raises(ConfigError, match="take 2 GPUs, but there are 1"):
        launcher.PoolLauncher(gpus=1).places([on("gpu", devices)])


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_was_asked_for_and_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    monkeypatch.setattr(launcher, "visible_gpus", list)
    with pytest.raises(ConfigError, match=f"accelerator={accelerator}, but this process can see no GPU"):
        launcher.PoolLauncher().places([on(accelerator, 1)])


def test_every_trial_has_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, every = (on("auto", count) for count in (1, 2, "auto"))
    monkeypatch.setattr(launcher, "cores", lambda: 8)
    monkeypatch.setattr(launcher, "visible_gpus", lambda: ["4", "5", "6", "7"])
    assert launcher.PoolLauncher().places([one, one]) == (4, ["4", "5", "6", "7"])
    assert launcher.PoolLauncher().places([every]) == (4, ["4", "5", "6", "7"])
    assert launcher.PoolLauncher().places([one, two]) == (2, ["4", "5", "6", "7"])
    assert launcher.PoolLauncher(gpus=3).places([one]) == (3, ["4", "5", "6"])
    assert launcher.PoolLauncher(slots=1).places([one]) == (1, ["4", "5", "6", "7"])
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.gpus=5, but this process can see 4"):
        launcher.PoolLauncher(gpus=5).places([one])
    monkeypatch.setattr(launcher, "visible_gpus", list)
    assert launcher.PoolLauncher().places([one]) == (8, [])


def test_a_process_that_only_starts_trials_does_without_torch() -> None:
    program = (
        "import sys, maskbench.train, maskbench.runtime.launcher\n"
        "heavy = {'torch', 'lightning', 'timm', 'wandb', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.slow
def test_two_trials_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskbench.train", "-m", *SEEDS, "trainer.max_epochs=1", "logger=none"]
    first = subprocess.run([*command, f"runs={tmp_path}"], check=True, capture_output=True, text=True, timeout=600)
    done = json.loads(first.stdout.splitlines()[-1])["done"]
    assert [parse_trial_name(name).seed for name in done] == [0, 1]
    assert all(Status.read(tmp_path / "swept" / name).state == "done" for name in done)
    again = subprocess.run([*command, f"runs={tmp_path}"], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(again.stdout.splitlines()[-1])["kept"] == done


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that sweeps would have run on."""
    made: list[Engine] = []

    def pretend(given: list[Trial], engine: Engine, **_: object) -> list[Outcome]:
        made.append(engine)
        return [Outcome(trial, "done") for trial in given]

    monkeypatch.setattr(launcher, "run", pretend)
    return made


def test_the_same_command_runs_on_a_ray_cluster(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["hydra/launcher=ray", "hydra.launcher.address=auto", "hydra.launcher.threads=2"]
    monkeypatch.setattr("sys.argv", ["train", "-m", *TINY[:-2], *settings, f"runs={tmp_path}"])
    train.main()
    (engine,) = engines
    assert isinstance(engine, Ray)
    assert (engine.address, engine.threads, engine.silence) == ("auto", 2, 3600)


def test_the_same_command_runs_on_a_slurm_cluster(
    engines: list[Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", fake_slurm.install(tmp_path / "bin")["PATH"])
    settings = ["hydra/launcher=slurm", "hydra.launcher.slots=3", "+hydra.launcher.sbatch.partition=gpu"]
    monkeypatch.setattr("sys.argv", ["train", "-m", *TINY, *settings, f"runs={tmp_path}"])
    train.main()
    (engine,) = engines
    assert isinstance(engine, Slurm)
    assert engine.slots == 3
    assert (engine._given["time"], engine._given["additional_parameters"]) == (1440, {"partition": "gpu"})


def test_a_job_takes_as_many_gpus_as_devices_or_a_part_of_one() -> None:
    assert launcher.RayLauncher().gpus_of(on("auto", 2)) == 2
    assert launcher.RayLauncher(share=0.5).gpus_of(on("gpu", 1)) == 0.5
    assert launcher.RayLauncher(share=0.5).gpus_of(on("cpu", 1)) == 0
    with pytest.raises(ConfigError, match=r"share=0\.5, but trainer\.devices=2"):
        launcher.RayLauncher(share=0.5).gpus_of(on("gpu", 2))
    with pytest.raises(ConfigError, match="a part of a GPU, above 0 and at most 1, found 2"):
        launcher.RayLauncher(share=2)
