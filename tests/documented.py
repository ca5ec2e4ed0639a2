"""What Markdown pages tell their readers to type: fenced blocks, the commands in them, and whether they can be run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import OmegaConf

from maskbench.__main__ import VERBS
from maskbench.runtime.command_line import refuse_parts, usage
from maskbench.runtime.verb import config_folder
from maskbench.targets import TRUSTED
from trained import composed

ROOT = Path(__file__).resolve().parents[1]
FENCED = re.compile(
    r"(?:^<!-- test: (?P<mark>\w+) -->\n)?^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
PLANNED = re.compile(r"-m maskbench\.(\w+) ?(.*?) *(?:;|$)", re.MULTILINE)
"""A verb with its settings in what `make -n` would do."""

OTHERS = {
    "pip": ("install",),
    "pytest": ("-k",),
    "ray": ("start",),
    "wandb": ("leet", "login", "sync"),
    ".": (".venv/bin/activate",),
}
"""Programs of others that pages name, and what they are asked for."""

SAID_BEFORE = (TRUSTED,)
"""Variables that stand before a command."""

NAME = "solov2"
"""What stands for a method of one's own."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        page: where it stands.
        language: after its fence.
        text: what is in it.
        mark: of a comment `<!-- test: MARK -->` on the line before: `run` or `slow`, it is really run.
    """

    page: Path
    language: str
    text: str
    mark: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.partition(chr(10))[0]}"

    def commands(self) -> list[list[str]]:
        """The words of each command; comments are left out, and lines that end in a backslash go on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path, language: str) -> list[Block]:
    """Those of a page in a language, in their order."""
    found = FENCED.finditer(page.read_text(encoding="utf-8"))
    return [Block(page, language, each["text"], each["mark"]) for each in found if each["language"] == language]


def check(words: Sequence[str]) -> None:
    """Fail where a command could not begin: a program, target, verb, group, choice or setting that does not exist."""
    match words:
        case [word, *rest] if "=" in word:
            assert word.partition("=")[0] in SAID_BEFORE, f"no such variable: {word}"
            check(rest)
        case ["nohup", *rest]:
            check([word for word in rest if word not in ("&", ">", "2>&1") and not word.endswith(".log")])
        case ["make", *rest]:
            _check_make(rest)
        case ["maskbench", verb, *rest] if not verb.startswith("-"):
            check_verb(verb, rest)
        case ["maskbench", *rest]:
            assert rest in (["--help"], ["--version"])
        case ["python", "-m", module, *rest] if (verb := module.removeprefix("maskbench.")) in VERBS:
            check_verb(verb, rest)
        case ["python", "-m", module, *rest]:
            _check_module(module, rest)
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), f"no such script: {script}"
        case [program, *rest]:
            assert program in OTHERS, f"an unknown program: {program}"
            assert rest[0] in OTHERS[program], f"{program} is not known to be asked for {rest[0]}"


def _check_make(given: Sequence[str]) -> None:
    words = [re.sub(r"\bNAME\b", NAME, word) for word in given]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    assert set(targets) <= set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE)), f"no such target: {targets}"
    named = {word.partition("=")[0] for word in words if "=" in word}
    known = re.findall(r"^(\w+) +\?=|\$\(origin (\w+)\)", makefile, re.MULTILINE)
    assert named <= {variable for pair in known for variable in pair}, f"no such variables: {named}"
    command = ["make", "-n", "-o", ".venv/.stamp", *(word for word in words if word != "-n")]
    planned = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    for verb, settings in PLANNED.findall(planned.stdout):
        check_verb(verb, shlex.split(settings))


def _check_module(module: str, words: Sequence[str]) -> None:
    assert importlib.util.find_spec(module) is not None, f"no such module: {module}"
    told = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True).stdout
    for option in (word for word in words if word.startswith("--")):
        assert option in told, f"{module} has no {option}"


def check_verb(verb: str, words: Sequence[str]) -> None:
    """Compose its config with these settings; nothing may be missing. Of values that a sweep lists all must exist."""
    assert verb in VERBS, f"no such verb: {verb}"
    if "--help" in words:
        assert usage(verb, config_folder())
        return
    swept = "-m" in words
    overrides = [OverridesParser.create().parse_override(word) for word in words if word != "-m"]
    chosen = []
    for override in overrides:
        word = str(override.input_line)
        if swept and override.is_sweep_override():
            key, values = override.get_key_element(), _values(override)
            folder = config_folder() / key
            absent = [value for value in values if folder.is_dir() and not (folder / f"{value}.yaml").is_file()]
            assert not absent, f"{key} has no {', '.join(absent)}"
            word = f"{key}={values[0]}"
        chosen.append(word)
    _compose(verb, tuple(chosen))


def _values(override: Override) -> list[str]:
    """The values of a sweep as written, of an interval where it begins."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start)]
    return list(islice(override.sweep_string_iterator(), 100))


@cache
def _compose(verb: str, words: tuple[str, ...]) -> None:
    cfg: Any = composed(verb, words)
    refuse_parts(cfg, HydraConfig.get().runtime.choices, config_folder())
    assert not (missing := OmegaConf.missing_keys(cfg)), f"{verb} {' '.join(words)}: {missing} not set"
    OmegaConf.resolve(cfg)
