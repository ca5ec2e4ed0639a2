"""What Hydra can't make of a command line, said by the setting, and what there is to set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

GROUP = re.compile(r"^  - (?:override )?/?(\w+): ", re.MULTILINE)


def unreadable(arguments: Iterable[str]) -> str | None:
    """Why the first argument that Hydra's grammar does not know is none of its settings; None where all are."""
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("-"):
            continue
        try:
            parser.parse_overrides([argument])
        except OverrideParseException:
            setting, given, value = argument.partition("=")
            if not given:
                return f"{argument}: expected SETTING=VALUE"
            home = f" ~ is not expanded: write {Path.home()}." if value.startswith("~") else ""
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            return (
                f"{setting}={value} can't be read: a value with blanks, brackets, commas, colons or the like stands in "
                f"quotes of its own, inside those of the shell: '{setting}=\"{quoted}\"'.{home}"
            )
    return None


def explain(error: HydraException) -> str:
    """What was composed in vain, and what is near it."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        folder = group.rpartition("/")[0]
        others = sorted(error.options)
        near = difflib.get_close_matches(choice, others, n=2, cutoff=0.5)
        where = f"{folder.removeprefix('/')}: " if folder else ""
        return f"there is no {error.missing_cfg_file}{_hint(near, others, where)}"
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
            parent = str(cause.full_key).rpartition(".")[0]
            known = [f"{parent}.{key}".lstrip(".") for key in cause.parent_node]
            near = difflib.get_close_matches(str(cause.full_key), known, n=2, cutoff=0.6)
            return f"there is no setting {cause.full_key}{_hint(near, known)}"
        cause = cause.__cause__
    return str(error)


def _hint(near: list[str], known: list[str], where: str = "") -> str:
    return f"; did you mean {' or '.join(near)}?" if near else f"; {where}there are {', '.join(known)}"


def usage(name: str, configs: Path) -> str:
    """The file of a verb's settings with its comments, and what its groups offer."""
    text = (configs / f"{name}.yaml").read_text(encoding="utf-8").rstrip()
    groups = [group for group in GROUP.findall(text) if (configs / group).is_dir()]
    offers = "\n".join(f"  {group}={'|'.join(_choices(configs / group))}" for group in groups)
    chosen = f"\n\nGroups, whose own settings are overridden as in optim.optimiser.lr=1e-3:\n{offers}" if offers else ""
    return (
        f"usage: maskbench {name} [SETTING=VALUE ...]   (or python -m maskbench.{name})\n\n{text}{chosen}\n\n"
        "--cfg job shows the composed config, --hydra-help what else Hydra can do."
    )


def _choices(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.yaml")))
