from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

import maskbench
from maskbench.errors import DataError
from maskbench.runtime.verb import INTERRUPTED, config_folder, report_errors, run


def test_an_installed_copy_has_its_configs_beside_its_modules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path
) -> None:
    assert config_folder() == root / "conf"
    (tmp_path / "site-packages/maskbench/conf").mkdir(parents=True)
    monkeypatch.setattr(maskbench, "__file__", str(tmp_path / "site-packages/maskbench/__init__.py"))
    assert config_folder() == tmp_path / "site-packages/maskbench/conf"


@pytest.mark.parametrize("error", [DataError("a.json: [broken]"), ConfigKeyError("no key: rot")])
def test_what_the_user_can_mend_is_one_message(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, report_errors():
        raise error
    assert stopped.value.code == 1
    assert capsys.readouterr().err.strip() == str(error)


def test_a_setting_without_a_value_is_named_as_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), report_errors():
        OmegaConf.to_container(OmegaConf.create({"data": {"root": "???"}}), throw_on_missing=True)
    assert "data.root is not set: say data.root=..." in capsys.readouterr().err


@pytest.mark.parametrize(("said", "told"), [((), "Interrupted."), (("Half is kept.",), "Half is kept.")])
def test_an_interrupted_verb_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: tuple[str, ...], told: str
) -> None:
    def task(cfg: DictConfig) -> dict[str, Any]:
        raise KeyboardInterrupt(*said)

    monkeypatch.setattr("sys.argv", ["report", "study=some"])
    with pytest.raises(SystemExit) as stopped:
        run("report", task)
    assert stopped.value.code == INTERRUPTED
    assert capsys.readouterr().err.strip() == told


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trainer.epochs=1", "there is no setting trainer.epochs; did you mean trainer.max_epochs"),
        ("method=null", "a group is given the name of one of its members"),
    ],
)
def test_what_hydra_cannot_compose_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    monkeypatch.setattr("sys.argv", ["train", word])
    with pytest.raises(SystemExit) as stopped:
        run("train", lambda cfg: {})
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith(told)


def test_what_hydra_cannot_build_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(cfg: DictConfig) -> dict[str, Any]:
        raise InstantiationException("a bug")

    monkeypatch.setattr("sys.argv", ["report", "study=some"])
    with pytest.raises(InstantiationException):
        run("report", task)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        _ = 1 / 0
