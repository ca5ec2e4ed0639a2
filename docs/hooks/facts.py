"""What configs, docstrings of methods and tables of experiments say, read as text: nothing heavy is imported."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import griffe
import yaml

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
EXPERIMENTS = ROOT / "experiments"
PARADIGMS = ("two-stage", "one-stage", "bottom-up", "hybrid")
SIZES = ("small", "crowded")


@dataclass(frozen=True)
class Line:
    """A setting as its yaml has it: where it stands, its value as written, and the comment beside it."""

    name: str
    value: str
    comment: str


@dataclass(frozen=True)
class Method:
    """A method by the name of its config."""

    name: str

    @property
    def config(self) -> Path:
        return CONF / "method" / f"{self.name}.yaml"

    @cached_property
    def written(self) -> griffe.Class:
        """Its class, as it is written down."""
        *module, name = yaml.safe_load(self.config.read_text(encoding="utf-8"))["_target_"].split(".")
        found = package()[".".join(module[1:])][name]
        assert isinstance(found, griffe.Class)
        return found

    @property
    def paradigm(self) -> str:
        return _attribute(self.written, "paradigm").strip("\"'")

    @property
    def title(self) -> str:
        """The first words of its module, up to the colon."""
        docstring = self.written.module.docstring
        assert docstring is not None
        return docstring.value.partition(":")[0]

    @property
    def idea(self) -> str:
        """What follows the colon, in a line."""
        docstring = self.written.module.docstring
        assert docstring is not None
        first = docstring.value.partition(":")[2].strip().split("\n\n")[0]
        return " ".join(first.split())

    @property
    def oracles(self) -> tuple[str, ...]:
        """What of the truth it can be given."""
        return ast.literal_eval(_attribute(self.written, "oracles"))

    @property
    def threshold(self) -> str:
        """The score threshold of its paper or of its code."""
        found = re.search(r"score_threshold=([\d.]+)", _attribute(self.written, "default_point"))
        assert found
        return found[1]

    @cached_property
    def meanings(self) -> dict[str, str]:
        """What its settings stand for, by name."""
        return meanings(self.written)

    def settings(self, variant: str = "") -> dict[str, str]:
        """Its settings and parts as written, nested ones by dotted name; empty where there is no such variant."""
        path = CONF / "method" / variant / f"{self.name}.yaml"
        if not path.is_file():
            return {}
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        chosen = [entry for entry in content.pop("defaults", []) if isinstance(entry, dict)]
        # `pool: roi_align`, or in a variant `override /method/pool@pool: roi_align_1`
        parts = {key.rpartition("@")[2]: choice or "null" for entry in chosen for key, choice in entry.items()}
        content.pop("_target_", None)
        return parts | _flat(content)


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            written = yaml.safe_dump(value, default_flow_style=True, width=1000)
            flat[f"{prefix}{name}"] = written.removesuffix("...\n").strip()
    return flat


@cache
def package() -> griffe.Module:
    """The sources, parsed and not imported."""
    found = griffe.load("maskbench", search_paths=[ROOT / "src"], allow_inspection=False)
    assert isinstance(found, griffe.Module)
    return found


def meanings(written: griffe.Object) -> dict[str, str]:
    """What the `Args` of a docstring say, by name, each on one line."""
    assert written.docstring is not None
    sections = written.docstring.parse("google", warn_unknown_params=False, warn_missing_types=False, warnings=False)
    return {
        parameter.name: " ".join(parameter.description.split())
        for section in sections
        if section.kind is griffe.DocstringSectionKind.parameters
        for parameter in section.value
    }


def _attribute(written: griffe.Class, name: str) -> str:
    """The value of a class attribute as written, inherited ones too."""
    while name not in written.members or written.members[name].value is None:
        (base,) = written.bases
        written = package()[base.canonical_path.removeprefix("maskbench.")]
    return str(written.members[name].value)


@cache
def methods() -> list[Method]:
    """All that are compared, by paradigm and name: those whose config is a paper's own."""
    files = sorted((CONF / "method").glob("*.yaml"))
    found = [Method(file.stem) for file in files if re.search(r"^_target_:", file.read_text("utf-8"), re.MULTILINE)]
    return sorted(found, key=lambda method: (PARADIGMS.index(method.paradigm), method.name))


def config_lines(path: Path) -> tuple[str, list[Line]]:
    """The comment on top of a flat config, and its settings with the comments beside them."""
    head, lines = [], []
    for text in path.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"([\w.]+):\s*(.*?)\s*(?:#\s*(.*))?", text):
            lines.append(Line(found[1], found[2], found[3] or ""))
        elif not lines and text.startswith("# "):
            head.append(text.removeprefix("# "))
        elif lines and (more := re.fullmatch(r"\s+#\s*(.*)", text)):
            last = lines.pop()
            lines.append(Line(last.name, last.value, f"{last.comment} {more[1]}"))
    return " ".join(head), [line for line in lines if line.name != "_target_"]


def rows(experiment: str, name: str) -> list[tuple[list[str], list[str]]]:
    """The tables of an experiment's page that have a row of this method, whatever its size: their head and that row."""
    found, head = [], []
    for line in (EXPERIMENTS / experiment / "README.md").read_text(encoding="utf-8").splitlines():
        cells = _cells(line)
        if not cells:
            head = []
        elif not head:
            head = cells
        elif cells[0] in (name, *(f"{name}-{size}" for size in SIZES)):
            found.append((head, cells))
    return found


def _cells(line: str) -> list[str]:
    if not line.startswith("|"):
        return []
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
