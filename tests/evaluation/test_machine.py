from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskbench.evaluation import machine
from maskbench.evaluation.machine import Company, device_name, library_versions


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /proc, on a machine of 100 ticks a second where this process does nothing."""
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(machine.resource, "getrusage", lambda who: Usage())
    return tmp_path


class Usage:
    ru_utime = ru_stime = 0.0


def test_other_cores_are_what_is_neither_idle_nor_ours(system: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "perf_counter", lambda: 10.0)
    (system / "stat").write_text("cpu  1000 0 500 9000 100 0 0 0 0 0\ncpu0 1 2 3\n")
    company = Company()
    # 20 s later: 24 s of user and system time, of which 4 s are ours
    (system / "stat").write_text("cpu  3000 0 900 9999 200 0 0 99 0 0\ncpu0 1 2 3\n")
    monkeypatch.setattr(machine, "perf_counter", lambda: 30.0)
    monkeypatch.setattr(Usage, "ru_utime", 4.0)
    assert company.other_cores() == pytest.approx(1.0)


def test_other_cores_are_unknown_where_the_system_does_not_tell(system: Path):
    assert Company().other_cores() is None


def test_a_processor_has_a_name(system: Path):
    assert device_name(torch.device("cpu"))
    (system / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus 3000\n")
    assert device_name(torch.device("cpu")) == "Abacus 3000"


def test_versions_are_those_of_the_libraries():
    assert library_versions()["torch"] == torch.__version__
