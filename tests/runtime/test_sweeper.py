from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from maskbench import train
from maskbench.errors import ConfigError
from maskbench.runtime import launcher
from maskbench.runtime.sweeper import OptunaSweeper
from maskbench.sweep.engine import Engine
from maskbench.sweep.status import Status
from maskbench.sweep.trial import Outcome, Trial
from trained import TINY

SIGMA = "method.sigma=interval(0.1,0.4)"
SEARCH = ("hydra/sweeper=optuna", *TINY, "study=searched")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[Trial]]:
    """The rounds that a search would have started; each trial is the better the larger its sigma is."""
    rounds: list[list[Trial]] = []

    def pretend(given: list[Trial], engine: Engine, **_: object) -> list[Outcome]:
        rounds.append(given)
        for trial in given:
            trial.folder.mkdir(parents=True)
            (trial.folder / "history.csv").write_text(f"epoch,tune/AP\n1,{sigma(trial)}\n")
        return [Outcome(trial, "done") for trial in given]

    monkeypatch.setattr(launcher, "run", pretend)
    return rounds


def sigma(trial: Trial) -> float:
    return float(next((word for word in trial.command if word.startswith("method.sigma=")), "=0").partition("=")[2])


def search(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    monkeypatch.setattr("sys.argv", ["train", "-m", *SEARCH, *overrides, "hydra.launcher.slots=3"])
    train.main()


def test_a_search_is_rounds_of_what_the_launcher_runs_at_once(
    started: list[list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search(monkeypatch, SIGMA, f"runs={tmp_path}", "hydra.sweeper.trials=5")
    assert [len(trials) for trials in started] == [3, 2]
    trials = [trial for given in started for trial in given]
    assert all({"method=small/solov2", "speed.enabled=false"} <= set(trial.command) for trial in trials)
    assert all(0.1 <= sigma(trial) <= 0.4 for trial in trials)
    study = tmp_path / "searched"
    told = capsys.readouterr()
    names = [trial.name for trial in trials]
    found = {"study": str(study), "done": names, "kept": [], "failed": []}
    assert json.loads(told.out.splitlines()[-1]) == found
    best = json.loads((study / "search.json").read_text())["best"]
    assert best["run"] == max(trials, key=sigma).name
    assert best["command"].endswith("study=searched-best")
    assert best["command"] in told.err


def test_a_round_is_as_large_as_asked_for(
    started: list[list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(monkeypatch, SIGMA, f"runs={tmp_path}", "hydra.sweeper.trials=3", "hydra.sweeper.batch=1")
    assert [len(trials) for trials in started] == [1, 1, 1]


def test_a_search_that_is_over_says_so_again(
    started: list[list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        search(monkeypatch, SIGMA, f"runs={tmp_path}", "hydra.sweeper.trials=2")
    assert len(started) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kept"] == [trial.name for trial in started[0]]


def test_the_method_itself_may_be_searched(
    started: list[list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = "method=small/discriminative,small/flow_field"
    search(monkeypatch, methods, "method.score=learned", f"runs={tmp_path}", "hydra.sweeper.trials=6")
    trials = [trial for given in started for trial in given]
    assert all("method.score=learned" in trial.command for trial in trials)
    assert {trial.name.split("-")[0] for trial in trials} == {"discriminative", "flow_field"}
    assert len(trials) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing to search in"),
        (("seed=0,1", SIGMA), "luck is no setting"),
        (("data.tune_share=0", SIGMA), "of the 0 photos of that split none has an object"),
        (("trainer.check_val_every_n_epoch=3", SIGMA), "the last of 2 epochs has none"),
        (("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=2,3", SIGMA), "the last of 3 epochs has none"),
        (("method=small/solov2,small/flow_field", SIGMA), "there is no setting method.sigma"),
        (("method.sigmo=interval(0,1)",), "there is no setting method.sigmo; did you mean method.sigma"),
        (("hydra/launcher=basic", SIGMA), "goes with hydra/launcher=pool, ray or slurm, found BasicLauncher"),
        (("hydra/launcher=ray", SIGMA), "hydra.sweeper.batch: this launcher does not know"),
        (("hydra.sweeper.trials=0", SIGMA), "hydra.sweeper.trials is at least 1, found 0"),
        (("trainer.accelerator=gpu,cpu", SIGMA), "it changes no result"),
    ],
)
def test_what_a_search_could_not_go_by_is_told_before_it_begins(
    started: list[list[Trial]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    slots = () if any(word.startswith("hydra/launcher=") for word in words) else ("hydra.launcher.slots=3",)
    monkeypatch.setattr("sys.argv", ["train", "-m", *SEARCH, *words, f"runs={tmp_path}", *slots])
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == 1
    assert not started
    assert not (tmp_path / "searched").exists()
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("name", "least"), [("trials", 1), ("batch", 1), ("seed", 0)])
def test_there_is_no_less_than_makes_sense(name: str, least: int) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.sweeper\.{name} is at least {least}, found {least - 1}"):
        OptunaSweeper(**{name: least - 1})


def test_two_searches_in_one_study_are_not_at_it_at_once(
    started: list[list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    holds = "import sys, maskbench.runtime.trial as t\nfrom pathlib import Path\n"
    holds += "with t.alone(Path(sys.argv[1]), RuntimeError): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holds, str(tmp_path / "searched")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SystemExit):
            search(monkeypatch, SIGMA, f"runs={tmp_path}")
        other.stdin.close()
    assert not started
    assert "another process searches there" in " ".join(capsys.readouterr().err.split())


def test_without_optuna_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    program = "import sys; sys.modules['optuna'] = None\nfrom maskbench import train\ntrain.main()"
    command = [sys.executable, "-c", program, "-m", *SEARCH, SIGMA, f"runs={tmp_path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr == "hydra/sweeper=optuna needs optuna: pip install 'maskbench[optuna]'\n"


def test_a_search_does_without_torch_and_whoever_does_not_search_without_optuna() -> None:
    program = (
        "import sys, maskbench.train\n"
        "assert 'optuna' not in sys.modules\n"
        "import maskbench.runtime.search\n"
        "heavy = {'torch', 'lightning', 'timm', 'wandb', 'albumentations'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def eventually(found: Callable[[], list[Path]], count: int) -> list[Path]:
    end = time.monotonic() + 300
    while len(paths := found()) < count:
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)
    return paths


@pytest.mark.slow
def test_a_search_whose_process_was_killed_goes_on(tmp_path: Path) -> None:
    study = tmp_path / "searched"
    settings = [SIGMA, f"runs={tmp_path}", "logger=none", "hydra.sweeper.trials=3", "hydra.launcher.slots=2"]
    command = [sys.executable, "-m", "maskbench.train", "-m", *SEARCH, *settings]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        runs = eventually(lambda: [path.parent for path in study.glob("*/status.json")], 2)
        killed.kill()
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    last = json.loads(ended.stdout.splitlines()[-1])
    assert {run.name for run in runs} <= {*last["done"], *last["kept"]}
    assert len(last["done"]) + len(last["kept"]) == 3
    assert not last["failed"]
    assert [Status.read(run).attempts for run in runs] == [2, 2]
    rows = json.loads((study / "search.json").read_text())["rows"]
    assert len(rows) == 3
    for row in rows:
        *_, final = (study / row["run"] / "history.csv").read_text().splitlines()
        assert str(row["tune/AP"]) in final.split(",")
    again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert len(json.loads(again.stdout.splitlines()[-1])["kept"]) == 3
