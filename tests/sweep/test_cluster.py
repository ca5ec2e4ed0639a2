from __future__ import annotations

from pathlib import Path

import pytest

from maskbench.errors import ConfigError
from maskbench.sweep.cluster import Arrivals, Gate, installed, known, lost
from maskbench.sweep.status import OWNER, Status
from maskbench.sweep.trial import Trial


def test_what_is_not_installed_is_told_with_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"hydra/launcher=ray needs no_such_module: pip install 'maskbench\[ray\]'"):
        installed("no_such_module", "ray")


def test_an_attempt_that_ended_without_a_word_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("a", [], tmp_path)
    monkeypatch.setenv(OWNER, "slurm 7")
    Status(host="elsewhere").write(tmp_path)
    lost(trial, "slurm 8", "its job is gone")
    assert known(trial).state == "running"  # somebody else is at it
    outcome = lost(trial, "slurm 7", "its job is gone")
    assert (known(trial).state, known(trial).reason, outcome.reason) == ("failed", "its job is gone", "its job is gone")
    Status().done().write(tmp_path)
    (tmp_path / "metrics.json").touch()
    assert lost(trial, "slurm 7", "its job is gone").state == "done"


def test_a_status_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").touch()
    assert known(Trial("a", [], tmp_path)) is None


def test_what_an_earlier_attempt_left_is_no_arrival(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("a", [], tmp_path)
    monkeypatch.setenv(OWNER, "ray 1")
    Status.begin(tmp_path)
    monkeypatch.setattr(Gate, "opens", lambda self, files: True)
    arrivals = Arrivals(lambda trial, owner: owner == "ray 1")
    arrivals.expect(trial)
    assert list(arrivals.look()) == []
    Status.begin(tmp_path)
    assert [started.trial for started in arrivals.look()] == [trial]
    assert not arrivals.awaits(trial)
