"""The rooms of the package and the one-way stairs between them: every import of every module, also inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from maskbench.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "maskbench"

SHARED = ("atomic", "errors", "phases", "targets")  # files beside the rooms that each of them may import

# Room → what it may import from the package, beside itself and what is shared, but for two that hold alternatives: a
# method never imports another method, a verb never another verb.
STAIRS: dict[str, set[str]] = {
    "atomic": set(),
    "errors": set(),
    "phases": set(),
    "structures": set(),
    "targets": set(),
    "ops": {"structures"},
    "nn": {"ops", "structures"},
    "methods": {"nn", "ops", "structures", "methods.base", "methods.bottom_up"},
    "data": {"structures", "ops"},
    "evaluation": {"structures", "ops"},
    "sweep": {"structures"},
    "study": {"evaluation", "structures", "sweep"},
    "weights": {"nn", "methods"},
}
STAIRS["runtime"] = set(STAIRS)
REACH_OF_A_VERB = set(STAIRS)
# of runtime what makes a method of its config
STAIRS["testing"] = {
    "evaluation",
    "methods.base",
    "structures",
    "runtime.compose",
    "runtime.searchpath",
    "runtime.verb",
}
BASE = {"nn", "ops", "structures", "methods.optim"}  # of methods.base, on which methods.bottom_up stands

# Third party → the modules that may import it; everywhere else it stays out.
KEPT_TO: dict[str, tuple[str, ...]] = {
    "hydra": ("runtime", "runtime.*", "VERB"),
    "lightning": ("methods.base", "data.datamodule", "runtime", "runtime.*", "VERB"),
    "pytest": ("testing.*",),
}

# What runs in processes that only launch or watch: torch takes seconds to import there.
WITHOUT_TORCH = (
    "__main__",
    "atomic",
    "errors",
    "targets",
    "sweep",
    "sweep.*",
    "data.shapes",
    "data.fingerprint",
    "data.parts",
    "data.preflight.*",
)


def name_of(path: Path) -> str:
    """`methods.base` for methods/base.py, `methods` for its __init__, the empty name for the package's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_verb(module: str) -> bool:
    return module == "__main__" or ("." not in module and (PACKAGE / f"{module}.py").is_file() and module not in STAIRS)


def matches(module: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(module, pattern) or (pattern == "VERB" and is_verb(module)) for pattern in patterns)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a module imports (`from maskbench.ops import boxes`: maskbench.ops.boxes)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def climbs(module: str, target: str) -> bool:
    """Whether `module` may not import `target` (both without the package's name)."""
    room, aim = module.split(".")[0], target.split(".")[0]
    if not target or aim in (*SHARED, "__version__"):
        return False
    if is_verb(module):
        return aim not in REACH_OF_A_VERB
    if aim == room and room != "methods":
        return False
    allowed = BASE if module == "methods.base" else STAIRS[room]
    return not any(target == step or target.startswith(f"{step}.") for step in allowed)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", [module for module in MODULES if module])
def test_a_module_imports_down_the_stairs_only(module: str) -> None:
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {target}"
        for line, target in imports(MODULES[module])
        if target.startswith(("maskbench", ".")) and climbs(module, target.removeprefix("maskbench").removeprefix("."))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", KEPT_TO)
def test_a_library_stays_in_its_rooms(library: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for module, path in MODULES.items()
        if not matches(module, KEPT_TO[library])
        for line, target in imports(path)
        if target.split(".")[0] == library
    ]
    assert not wrong, "\n".join(wrong)


def test_every_room_is_in_the_table_and_has_modules() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in ("__pycache__", "conf")}
    assert folders <= set(STAIRS), f"rooms without stairs: {sorted(folders - set(STAIRS))}"
    empty = [room for room in sorted(folders) if not any(module.startswith(f"{room}.") for module in MODULES)]
    assert not empty, f"rooms without modules: {empty}"


def test_a_file_beside_the_rooms_is_what_all_rooms_share_or_a_verb() -> None:
    beside = {path.stem for path in PACKAGE.glob("*.py")}
    assert beside - {"__init__", "__main__", "structures", *SHARED} == set(VERBS)


def test_no_room_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "misc", "common", "helpers"}
    found = [module for module in MODULES if drawers & set(module.split("."))]
    assert not found


def test_what_launches_and_watches_does_without_torch() -> None:
    watchers = [f"maskbench.{module}" for module in MODULES if matches(module, WITHOUT_TORCH)]
    program = f"import sys, {', '.join(watchers)}\nassert 'torch' not in sys.modules, 'one of them imports torch'"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("module", "target", "forbidden"),
    [
        ("ops.boxes", "structures", False),
        ("ops.boxes", "ops.masks", False),
        ("ops.boxes", "nn.fpn", True),
        ("nn.fpn", "methods.base", True),
        ("methods.solo", "methods.base.Segmenter", False),
        ("methods.solo", "methods.solov2", True),
        ("methods.base", "methods.optim.Optim", False),
        ("data.coco", "errors.DataError", False),
        ("data.coco", "evaluation.results", True),
        ("runtime.loop", "study.runs", False),
        ("study.runs", "runtime.loop", True),
        ("__main__", "runtime.verb", False),
        ("testing.configs", "runtime.compose", False),
        ("testing.contract", "methods.solo", True),
        ("runtime.compose", "testing.contract", True),
        ("train", "testing.contract", True),
    ],
)
def test_the_stairs_themselves(module: str, target: str, forbidden: bool) -> None:
    assert climbs(module, target) is forbidden
