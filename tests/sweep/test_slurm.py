from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

import chaos
import fake_slurm
from maskbench.errors import ConfigError
from maskbench.sweep.slurm import Slurm

ENGINE = """
from maskbench.sweep import cluster, slurm
cluster.EVERY = slurm.ASK = 0.5
engine = slurm.Slurm(Path(sys.argv[1]), slots=2, silence=5.0)
"""


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no srun on the PATH"):
        Slurm(tmp_path)


@pytest.mark.slow
def test_a_sweep_survives_all_that_can_go_wrong_and_preemption(tmp_path: Path) -> None:
    environment = fake_slurm.install(tmp_path / "bin")
    study = tmp_path / "study"
    study.mkdir()

    def preempt() -> None:
        chaos.wait_until(lambda: bool(chaos.working(study, chaos.SLOW)))
        job = (study / "slurm" / f"{chaos.SLOW}.job").read_text()
        subprocess.run(["scancel", job, "--signal", "USR2"], env=os.environ | environment, check=True)

    text = chaos.survives(study, ENGINE, meanwhile=preempt, environment=environment, orphans=True)
    assert "no sign of life for" in text
    begun = [trial for word, trial, _ in chaos.notes(study) if word == "begin"]
    assert begun.count(chaos.SLOW) == 2
    assert all(begun.count(trial) == 1 for trial in chaos.SOUND)  # what the lost sweep started was waited for


@pytest.mark.slow
def test_who_asks_for_an_end_lets_trials_write_down_what_they_have(tmp_path: Path) -> None:
    environment = fake_slurm.install(tmp_path / "bin")
    (tmp_path / "study").mkdir()
    chaos.is_ended(tmp_path / "study", ENGINE, signal.SIGINT, environment)
