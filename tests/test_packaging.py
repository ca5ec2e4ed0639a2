"""What a stranger installs: bounds, lock, wheel, version, and commands that say what they do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from maskbench import __version__


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def requirements(project: dict[str, Any]) -> list[Requirement]:
    stated = list(project["project"]["dependencies"])
    for named in (project["dependency-groups"], project["project"]["optional-dependencies"]):
        stated += [line for group in named.values() for line in group]
    return [Requirement(line) for line in [*stated, *project["build-system"]["requires"]]]


@pytest.fixture(scope="module")
def locked(root: Path) -> list[Requirement]:
    return [Requirement(line) for line in (root / "requirements.lock").read_text().splitlines()]


def test_every_dependency_has_a_lower_and_an_upper_bound(requirements: list[Requirement]) -> None:
    for requirement in requirements:
        operators = {clause.operator for clause in requirement.specifier}
        assert {">=", "<"} <= operators, f"{requirement} lacks a bound"


def test_the_lock_pins_every_dependency_inside_its_bounds(
    requirements: list[Requirement], locked: list[Requirement]
) -> None:
    pins: dict[str, list[str]] = {}
    for pin in locked:
        (clause,) = pin.specifier
        assert clause.operator == "==", f"{pin} is no pin"
        pins.setdefault(canonicalize_name(pin.name), []).append(clause.version)
    for requirement in requirements:
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"


def test_the_lock_names_no_place(root: Path) -> None:
    text = (root / "requirements.lock").read_text()
    assert "://" not in text
    assert "--" not in text


def test_torch_is_not_older_than_what_the_tests_ran_on(project: dict[str, Any]) -> None:
    (torch,) = [Requirement(line) for line in project["project"]["dependencies"] if re.match(r"torch\b", line)]
    assert not torch.specifier.contains("2.10.0")
    assert project["project"]["requires-python"] == ">=3.11,<3.14"


def test_one_version_everywhere(root: Path) -> None:
    assert Version(__version__)
    assert f"\nversion: {__version__}\n" in (root / "CITATION.cff").read_text()


def test_the_wheel_carries_the_configs_and_the_console_script(root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, timeout=120, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
        assert "maskbench = maskbench.__main__:main" in archive.read(entry_points).decode()
    configs = {path.relative_to(root).as_posix() for path in (root / "conf").rglob("*.yaml")}
    assert configs
    assert {f"maskbench/{config}" for config in configs} <= names
    package = root / "src" / "maskbench"
    sources = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sources <= names
    assert not [name for name in names if name.startswith(("tests/", "src/"))]


def make(root: Path, *arguments: str) -> str:
    """What `make` prints; it inherits no variable of a `make test` that runs this."""
    environment = {"PATH": os.environ["PATH"]}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout


def test_every_make_target_is_in_the_help(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    assert re.findall(r"^  make ([a-z-]+) +\S", make(root), flags=re.MULTILINE) == phony.split()


@pytest.mark.parametrize(("size", "expected"), [("small", "method=small/solov2,own"), ("", "method=solov2,own")])
def test_a_sweep_trains_then_times_then_reports(root: Path, size: str, expected: str) -> None:
    settings = [
        "METHODS=solov2,own",
        f"SIZE={size}",
        "SEEDS=0,1",
        "RUNS=/big",
        "STUDY=mine",
    ]  # of its own it has no small one
    planned = make(root, "-n", "-o", ".venv/.stamp", "sweep", *settings)
    train, benchmark, report = re.findall(r"-m maskbench\.(.+?) *;", planned)
    assert train.split() == ["train", "-m", "experiment=shapes", expected, "seed=0,1", "runs=/big", "study=mine"]
    assert benchmark.split() == ["benchmark", "study=/big/mine", "again=false"]
    assert report.split() == ["report", "study=/big/mine", "again=false"]


PATHS = [
    "/my data/(1) [x], y=z {ü}: 数据#1",
    '/it\'s "quoted"',
    '/back\\slash\\"and quote',
    "/ends in a backslash\\",
    "/$HOME/100 %",
    "~/photos",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_folder_of_ones_own_is_one_line(root: Path, tmp_path: Path, path: str) -> None:
    """Whatever its name is made of, it arrives; the study is called as the experiment."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    told = make(
        root, "-s", "-o", ".venv/.stamp", "sweep", f"RUN={python}", f"DATA={path}", "METHODS=solov2"
    ).splitlines()
    train = next(json.loads(line) for line in told if line.startswith('["-m", "maskbench.train"'))
    assert train[3:-1] == ["experiment=mine", "method=crowded/solov2", "seed=0", "runs=runs", "study=mine"]
    for _ in range(2):  # as it stands in the line of each trial, too
        override = OverridesParser.create().parse_override(train[-1])
        assert not override.is_sweep_override()
        assert (override.key_or_group, override.value()) == ("data.root", path)
        train[-1] = f"data.root={override.get_value_element_as_str()}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["EXPERIMENT=mine"], "EXPERIMENT=mine compares methods on a folder of yours: say DATA=/path/to/it as well"),
        (
            ["DATA=/photos", "EXPERIMENT=shapes"],
            "EXPERIMENT=shapes draws its data: leave it out, or say EXPERIMENT=mine",
        ),
        (["DATA="], "DATA is empty: say DATA=/path/to/folder"),
    ],
)
def test_data_that_do_not_go_with_the_experiment_are_refused(root: Path, words: list[str], told: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make(root, "-n", "-o", ".venv/.stamp", "sweep", *words)
    assert told in refused.value.stderr


def test_data_of_the_environment_are_somebody_elses(root: Path) -> None:
    command = ["make", "-n", "-o", ".venv/.stamp", "sweep"]
    environment = {"PATH": os.environ["PATH"], "DATA": "/photos"}
    planned = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout
    assert "experiment=shapes method=small/" in planned
    assert "experiment=mine" in make(root, *command[1:], "EXPERIMENT=mine", "ARGS='data.root=\"/a b\"'")


@pytest.mark.parametrize("verb", ["benchmark", "report"])
def test_a_study_is_looked_for_where_it_was_trained(root: Path, verb: str) -> None:
    assert "study=runs/shapes" in make(root, "-n", "-o", ".venv/.stamp", verb)
    assert "study=/big/shapes" in make(root, "-n", "-o", ".venv/.stamp", verb, "RUNS=/big")


def test_a_sweep_whose_steps_would_miss_each_other_is_refused(root: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        make(root, "-n", "-o", ".venv/.stamp", "sweep", "ARGS=seed=1 runs=/big")
    assert "say RUNS=... and STUDY=... instead of runs=/big" in refused.value.stderr


@pytest.mark.parametrize(
    ("codes", "taken", "status"),
    [
        ({}, ["train", "benchmark", "report"], 0),
        ({"train": 3, "report": 1}, ["train", "benchmark", "report"], 3),
        ({"train": 1}, ["train"], 1),
        ({"train": 130}, ["train"], 130),
        ({"train": 3, "benchmark": 130}, ["train", "benchmark"], 130),
    ],
)
def test_a_failed_trial_keeps_nobody_from_the_table(
    root: Path, tmp_path: Path, codes: dict[str, int], taken: list[str], status: int
) -> None:
    cases = " ".join(f"maskbench.{verb}) exit {code};;" for verb, code in codes.items())
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in {cases} *) exit 0;; esac\n')
    python.chmod(0o755)
    command = ["make", "-o", ".venv/.stamp", "sweep", f"RUN={python}"]
    ended = subprocess.run(command, cwd=root, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert re.findall(r"-m maskbench\.(\w+)", ended.stdout) == taken
    assert bool(ended.returncode) == bool(status)
    assert not status or f"Error {status}" in ended.stderr


def test_the_workflow_runs_what_a_developer_runs(root: Path) -> None:
    assert "- run: .ci/run" in (root / ".github" / "workflows" / "check.yml").read_text()
    gate = root / ".ci" / "run"
    assert gate.stat().st_mode & 0o111
    assert gate.read_text().endswith("make check\nmake test\n")


def test_the_changelog_has_an_entry_for_what_comes_next(root: Path) -> None:
    assert "\n## [Unreleased]\n" in (root / "CHANGELOG.md").read_text()
