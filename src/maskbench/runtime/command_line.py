"""What Hydra can't make of a command line, said by the setting, and what there is to set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

GROUP = re.compile(r"^  - (?:override )?/?(\w+): ", re.MULTILINE)


def explain(error: HydraException, configs: Path) -> str:
    """What can't be read of a command line and how it could, or what is not there and what is near it."""
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.partition("/")
        return f"there is no {group}={choice}{_hint(choice, list(_choices(configs / group)))}"
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        parent = str(cause.full_key).rpartition(".")[0]
        known = [f"{parent}.{key!s}".lstrip(".") for key in cause.parent_node]
        return f"there is no setting {cause.full_key}{_hint(str(cause.full_key), known)}"
    return str(error)


def _unreadable(argument: str) -> str:
    setting, given, value = argument.partition("=")
    if not given:
        return f"{argument}: expected SETTING=VALUE"
    home = f" ~ is not expanded: write {Path.home()}." if value.startswith("~") else ""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"{argument} can't be read: a value with blanks, brackets, commas or the like stands in quotes of its own, "
        f"inside those of the shell: '{setting}=\"{quoted}\"'.{home}"
    )


def _hint(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"


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
