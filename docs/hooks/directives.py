"""Pages say `{{ settings }}` and the like, alone on a line, for what configs, docstrings and experiments have already.

So nothing of it is written twice, and nothing can go out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from facts import CONF, EXPERIMENTS, ROOT, SIZES, Method, config_lines, methods, rows
from mkdocs.exceptions import PluginError

LINE = re.compile(r"^\{\{ (\w+)(?: (\S+))? \}\}$", re.MULTILINE)
MEASURED = {
    "shapes": "Drawn shapes of 128 px, one seed, two CPU cores",
    "nuclei": "Crowded nuclei on photographs, one seed, a CPU",
    "overfit": "Eight photographs of COCO, learnt by heart",
    "speed": "At the papers' settings, random weights: milliseconds on two CPU cores, then images a second on an H200",
}
"""The experiments that have rows of methods, and what they are of."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put in the place of each directive what it stands for."""
    source = PurePosixPath(page.file.src_uri)

    def said(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name not in DIRECTIVES:
            raise PluginError(f"{source}: no directive {name}; there are {', '.join(DIRECTIVES)}")
        return DIRECTIVES[name](argument or source.stem)

    return LINE.sub(said, markdown)


# A method ------------------------------------------------------------------------------------------------------------


def facts(name: str) -> str:
    """Where it stands, and what it can be asked."""
    method = Method(name)
    files = [f"`src/maskbench/methods/{name}.py`", f"`conf/method/{name}.yaml`", f"`tests/methods/test_{name}.py`"]
    oracles = ", ".join(method.oracles) or "none of its own"
    return "\n".join(
        [
            f"- **Paradigm:** {method.paradigm}",
            f"- **Files:** {', '.join(files)}",
            f"- **Chosen by:** {', '.join(f'`method={choice}`' for choice in choices(name))}",
            f"- **Score threshold of the paper or its code:** {method.threshold}",
            f"- **Oracles** ([what they are](../numbers.md#oracles)): {oracles}, and true classes as every method",
        ]
    )


def choices(name: str) -> list[str]:
    """The paper's, its sizes and its published variants."""
    sized = [f"{size}/{name}" for size in SIZES if (CONF / "method" / size / f"{name}.yaml").is_file()]
    files = sorted((CONF / "method").glob(f"{name}_*.yaml"))
    return [name, *(file.stem for file in files if "@_here_" in file.read_text(encoding="utf-8")), *sized]


def settings(name: str) -> str:
    """A row a setting: the paper's value, what the sizes have in its place, and what it means."""
    method = Method(name)
    own, sizes = method.settings(), {size: found for size in SIZES if (found := method.settings(size))}
    inside = sorted({key for found in sizes.values() for key in found} - set(own))
    lines = []
    for key in [*own, *inside]:
        meaning = _meaning(key, method.meanings)
        values = [_code(own.get(key)), *(_code(found.get(key)) for found in sizes.values())]
        lines.append([f"`{key}`", *values, meaning])
    return _table(["setting", "the paper's", *(f"`{size}/`" for size in sizes), "meaning"], lines)


def _meaning(key: str, known: dict[str, str]) -> str:
    """Its own, or where it is told: beside another setting, or with the part that it is of."""
    if known.get(key, "see there.") != "see there.":
        return known[key]
    owner, inside, _ = key.partition(".")
    if inside:
        return f"of the part `{owner}`"
    beside = next(name for name, text in known.items() if f"`{key}`" in text or f"{key}:" in text)
    return f"see `{beside}`"


def parts(name: str) -> str:
    """What can stand in the place of each of its parts."""
    groups = [key for key in Method(name).settings() if (CONF / "method" / key).is_dir()]
    lines = [
        [f"`method/{group}={file.stem}`", config_lines(file)[0]]
        for group in groups
        for file in sorted((CONF / "method" / group).glob("*.yaml"))
    ]
    return _table(["choice", "what it is"], lines) if lines else "It has no parts that are exchanged by name."


def picture(name: str) -> str:
    """Its stages on a photograph, once there is such a picture."""
    folder = ROOT / "docs" / "methods" / "pictures"
    if not (folder / f"{name}.png").is_file():
        return ""
    origin = "([of what it was made](pictures/README.md))" if (folder / "README.md").is_file() else ""
    words = "From a photo to instances, stage by stage"
    return f"![{Method(name).title}: {words}](pictures/{name}.png)\n\n*{words}.* {origin}"


def numbers(name: str) -> str:
    """Its rows in the tables of experiments."""
    blocks = []
    for experiment, what in MEASURED.items():
        tables = [_table(["", *head[1:]], [cells]) for head, cells in rows(experiment, name)]
        if tables:
            blocks += [f"**{what}** ([experiments/{experiment}](../experiments/{experiment}/README.md)):", *tables]
    return "\n\n".join(blocks) or "No experiment has a row of it yet."


# All methods, experiments and configs --------------------------------------------------------------------------------


def overview(_: str) -> str:
    """A row a method."""
    lines = [[f"[{each.title}]({each.name}.md)", f"`{each.name}`", each.paradigm, each.idea] for each in methods()]
    return _table(["method", "`method=`", "paradigm", "how it finds an object"], lines)


def questions(_: str) -> str:
    """What each experiment asks."""
    pages = sorted(EXPERIMENTS.glob("*/README.md"))
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in pages]
    return "\n".join(
        f"- [{title}]({page.parent.name}/README.md) (`experiments/{page.parent.name}`)"
        for page, title in zip(pages, titles, strict=True)
    )


def config(group_and_choice: str) -> str:
    """A flat config as a table."""
    head, lines = config_lines(CONF / f"{group_and_choice}.yaml")
    prefix = re.sub(r"^hydra/(\w+)/.*", r"hydra.\1.", group_and_choice) if group_and_choice.startswith("hydra/") else ""
    body = [[f"`{prefix}{line.name}`", _code(line.value), line.comment] for line in lines]
    return f"{head}\n\n{_table(['setting', 'default', 'meaning'], body)}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in (head, rule, *lines))


def _code(value: str | None) -> str:
    return f"`{value}`" if value else ""


DIRECTIVES: dict[str, Callable[[str], str]] = {
    directive.__name__: directive
    for directive in (facts, settings, parts, picture, numbers, overview, questions, config)
}
