"""What the documentation says can be done as it stands there, and what it lists is all that there is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hydra.errors import HydraException

from documented import ROOT, Block, blocks, check
from maskbench.__main__ import VERBS
from maskbench.data.shapes import draw
from maskbench.study.leaderboard import COLUMNS, DEPLOYED
from trained import run

__all__ = ["run"]  # a fixture

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "hooks" not in path.parts)
ALONE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
NOTEBOOK = DOCS / "from_data_to_verdict.ipynb"
COMMANDS = [block for page in [*PAGES, *ALONE] for block in blocks(page, "bash")]
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="a source distribution has no documentation")

FIGURE = re.compile(r"\d+\.\d+|\d,\d{3}|\d{3,}")
"""What is taken for a measured number."""


def marked(mark: str) -> list[Block]:
    return [block for block in COMMANDS if block.mark == mark]


def text_of(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def part(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level."""
    level = heading.partition(" ")[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"no heading {heading}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


@pytest.fixture(scope="module")
def facts() -> ModuleType:
    """What the site's own tables are made of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS / "hooks"))
        return import_module("facts")


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_every_command_can_begin(block: Block) -> None:
    for words in block.commands():
        check(words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("make sweeep", "no such target: .*sweeep"),
        ("make sweep METHOD=htc", "no such variables: .*METHOD"),
        ("make sweep ARGS='trainer.epochs=3'", "Could not override 'trainer.epochs'"),
        ("maskbench trian", "no such verb: trian"),
        ("python -m maskbench.nothing", "no such module: maskbench.nothing"),
        ("python -m maskbench.train methods=solov2", "Could not override 'methods'"),
        ("python -m maskbench.train data=coco", "'data.root'. not set"),
        ("python -m maskbench.train -m method=small/solov2,small/solov3", "method has no small/solov3"),
        ("MASKBENCH_TRUST=paper make sweep", "no such variable: MASKBENCH_TRUST=paper"),
        ("wandb launch", "wandb is not known to be asked for launch"),
        ("rm -r runs", "an unknown program: rm"),
    ],
)
def test_a_command_that_could_not_is_found(words: str, told: str) -> None:
    with pytest.raises((AssertionError, HydraException), match=told):
        check(shlex.split(words))


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block.text, str(page), "exec"), names)


def do(block: Block, where: Path, placeholders: dict[str, str]) -> None:
    """Type the commands of a block, with names of files in the place of words in capitals."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {**placeholders, "OUT": str(where / "out")}
    for written in block.commands():
        words = [re.sub(r"\b[A-Z]+\b", lambda found: known.get(found[0], found[0]), word) for word in written]
        if words[0] == "make":
            words += ["-C", str(ROOT), "-o", ".venv/.stamp", f"RUN={sys.executable}", f"RUNS={where}"]
        ended = subprocess.run(
            words, cwd=where, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=600
        )
        assert ended.returncode == 0, f"{shlex.join(words)}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
        if "maskbench.train" in words:
            known["RUN"] = str(where / json.loads(ended.stdout.splitlines()[-1])["run"])


@pytest.mark.parametrize("block", marked("run"), ids=str)
def test_quick_commands_run(block: Block, tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "source" / kind).mkdir(parents=True)
    for name in ("a", "b", "c"):
        label = np.zeros((32, 48), np.uint8)
        label[4:12, 4:12], label[4:12, 12:20] = 1, 2
        cv2.imwrite(str(tmp_path / "source" / "masks" / f"{name}.png"), label)
        cv2.imwrite(str(tmp_path / "source" / "images" / f"{name}.png"), 100 * label)
    do(block, tmp_path, {"SOURCE": str(tmp_path / "source")})


@pytest.mark.slow
@pytest.mark.parametrize("block", marked("slow"), ids=str)
def test_longer_commands_run(block: Block, run: Path, tmp_path: Path) -> None:
    folder = draw(images=4, val_images=4, size=64)
    (tmp_path / "annotations.json").write_bytes((folder / "annotations" / "instances_val.json").read_bytes())
    image = json.loads((tmp_path / "annotations.json").read_text())["images"][0]
    nothing = {
        "image_id": image["id"],
        "category_id": 3,
        "score": 0.9,
        "segmentation": {"size": [64, 64], "counts": "PP4"},
    }
    (tmp_path / "predictions.json").write_text(json.dumps([nothing]))
    known = {
        "RUN": run,
        "PHOTOS": folder / "images",
        "PREDICTIONS": "predictions.json",
        "ANNOTATIONS": "annotations.json",
    }
    do(block, tmp_path, {name: str(path) for name, path in known.items()})


@pytest.mark.slow
def test_the_notebook_goes_from_data_to_verdict(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    (parameters,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    parameters["source"] = 'IMAGES, TEST, SIZE, EPOCHS = 16, 4, 64, 1\nMETHODS = ["solov2", "semantic"]'
    (tmp_path / NOTEBOOK.name).write_text(json.dumps(notebook), encoding="utf-8")
    execute = [str(Path(sys.executable).with_name("jupyter-execute")), "--inplace", "--timeout=600", NOTEBOOK.name]
    ended = subprocess.run(execute, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-4000:]
    cells = json.loads((tmp_path / NOTEBOOK.name).read_text(encoding="utf-8"))["cells"]
    printed = "".join("".join(output.get("text", ())) for cell in cells for output in cell.get("outputs", ()))
    assert "mask AP" in printed
    assert "'done': 2" in printed


def test_what_the_notebook_keeps_of_its_outputs_is_small() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")


# Pages ---------------------------------------------------------------------------------------------------------------


def test_the_site_is_built_without_warnings_and_fetches_nothing(tmp_path: Path) -> None:
    build = ["make", "docs", "-o", ".venv/.stamp", f"RUN={sys.executable}", f"ARGS=--site-dir '{tmp_path}'"]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".py", ".pyc", ".ipynb", ".md")]
    pages = list(tmp_path.rglob("index.html"))
    assert len(pages) >= len(PAGES) + len(list((ROOT / "experiments").glob("*/README.md")))
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="https?:[^"]*"', html), page
        assert "{{" not in re.sub(r"<(script|pre|code).*?</\1>", "", html, flags=re.DOTALL), page
        assert "arithmatex" not in html, page
    assert (tmp_path / "methods" / "solov2" / "index.html").read_text(encoding="utf-8").count("<math ") > 3


INSIDE = {
    *(f"data.{name}" for name in ("cache", "folder", "parts", "resize", "runs", "sampler", "semantic")),
    *(f"data.fitting.{name}" for name in ("anchors", "grids", "inputs", "lengths", "seen")),
    *(f"data.preflight.{name}" for name in ("classes", "layout", "leakage", "likeness", "looking", "masks", "names")),
    *(f"data.preflight.{name}" for name in ("outlines", "photos", "pictures", "records", "tally")),
}
"""Modules that only others of their room call, or the verbs: the reference leaves them out."""


@pytest.mark.parametrize("room", ["data", "evaluation", "ops"])
def test_the_reference_has_every_module_of_a_room(room: str) -> None:
    source = ROOT / "src" / "maskbench"
    files = [path.relative_to(source).with_suffix("") for path in (source / room).rglob("*.py")]
    modules = {".".join(file.parts) for file in files if file.name != "__init__"}
    inside = {name for name in INSIDE if name.startswith(f"{room}.")}
    assert inside <= modules
    told = re.findall(r"^::: maskbench\.(\S+)$", text_of(f"reference/{room}.md"), flags=re.MULTILINE)
    assert sorted(told) == sorted(modules - inside)


def test_every_method_has_a_page_of_the_same_form(facts: ModuleType) -> None:
    names = [method.name for method in facts.methods()]
    assert {f"{name}.md" for name in [*names, "index"]} == {path.name for path in (DOCS / "methods").glob("*.md")}
    for name in names:
        said = re.findall(r"^\{\{ (\w+) \}\}$", text_of(f"methods/{name}.md"), flags=re.MULTILINE)
        assert said == ["facts", "picture", "settings", "parts", "numbers"], name


def test_every_setting_of_a_method_is_explained(facts: ModuleType) -> None:
    for method in facts.methods():
        told = " ".join(method.meanings.values())
        plain = [key for key in method.settings() if "." not in key]
        unknown = [key for key in plain if key not in method.meanings and not re.search(rf"\b{key}\b", told)]
        assert not unknown, f"{method.name}: {unknown}"


FINDINGS = {f"methods/{path.name}": "## Good at, bad at" for path in (DOCS / "methods").glob("*.md")}
FINDINGS["methods/index.md"] = "## When to choose which"


@pytest.mark.parametrize(("name", "heading"), FINDINGS.items(), ids=FINDINGS)
def test_figures_stand_in_the_experiments_that_they_are_taken_from(name: str, heading: str) -> None:
    said = part(text_of(name), heading)
    linked = re.findall(r"\(\.\./experiments/(\w+)/README\.md\)", said)
    assert linked, "figures name no experiment"
    sources = " ".join((ROOT / "experiments" / one / "README.md").read_text(encoding="utf-8") for one in linked)
    known = set(FIGURE.findall(sources))
    figures = FIGURE.findall(re.sub(r"`[^`]*`|\]\([^)]*\)", "", said))
    assert not [figure for figure in figures if figure not in known]


def test_the_report_is_explained_whole() -> None:
    page = text_of("dashboard.md")
    template = (ROOT / "src/maskbench/study/templates/report.html.j2").read_text(encoding="utf-8")
    headings = [
        found for found in re.findall(r"<h2>([^<]+)</h2>", template) if "{" not in found and "Footing" not in found
    ]
    pictures = (ROOT / "src/maskbench/study/pictures.py").read_text(encoding="utf-8")
    titles = re.findall(r'Picture\("[\w-]+", "([^"]+)"', pictures)
    assert len(headings) > 5
    assert len(titles) > 5
    columns = [column.title for column in (*COLUMNS, *DEPLOYED)]
    columns = [{"TP/(TP+FP+FN) at 0.5–0.95": "at 0.5–0.95", "|DiC|": r"\|DiC\|"}.get(title, title) for title in columns]
    assert not [words for words in [*headings, *titles, *columns] if words not in page]


def listed(text: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    lines = [line for line in part(text, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines[2:]]


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", cell))


def test_groups_have_the_choices_that_are_listed() -> None:
    rows = listed(text_of("your_data.md"), "## Backbone, schedule, augmentation")
    assert {group.strip("`") for group, _ in rows} >= {"backbone", "optim", "protocol", "trainer", "transforms"}
    for group, choices in rows:
        there = {path.stem for path in (ROOT / "conf" / group.strip("`")).glob("*.yaml")}
        assert there <= quoted(choices), f"{group}: {there - quoted(choices)} are not told of"


def test_verbs_and_marks_are_listed() -> None:
    assert quoted(part(text_of("index.md"), "## What it is made of")) >= set(VERBS)
    source = (ROOT / "src/maskbench/study/leaderboard.py").read_text(encoding="utf-8")
    marks = set(re.findall(r'^                "(\W)",$|\("(\W)", "No interval', source, flags=re.MULTILINE))
    marks = {mark for pair in marks for mark in pair if mark} | set("†‡")
    assert {row[0] for row in listed(text_of("numbers.md"), "## Marks in the table")} == marks


@pytest.mark.slow
def test_every_file_of_a_run_is_explained(run: Path) -> None:
    rows = listed(text_of("numbers.md"), "## A run's folder")
    told = {name.rstrip("/") for row in rows for name in quoted(row[0])}
    assert {path.name for path in run.iterdir()} <= told
