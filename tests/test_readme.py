"""What the README promises can be run as it stands there."""

import re
from pathlib import Path

import pytest

from documented import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["instances"], "the example ends with the instances of some photos"


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*?##", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named
    assert named <= targets


def test_every_file_of_its_tree_exists() -> None:
    (tree,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    paths = [line.split()[0] for line in tree.splitlines() if line and not line.startswith(" ")]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
