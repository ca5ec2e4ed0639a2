"""What Hydra can't make of a command line, said by the setting, and what there is to set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from maskbench.errors import ConfigError

GROUP = re.compile(r"^  - (?:override )?/?(\w+): ", re.MULTILINE)
UNMATCHED = re.compile(r"Could not override '(\w+/[\w/]+)")
"""What Hydra says of a part that the composed config has no place for."""


def explain(error: HydraException, *configs: Path) -> str:
    """What can't be read of a command line and how it could, or what is not there and what is near it.

    Args:
        error: Hydra's.
        configs: the folders that configs are chosen from.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.partition("/")
        for part in _parts(group, configs):  # the deepest last
            if error.missing_cfg_file.startswith(f"{part}/"):
                group, choice = part, error.missing_cfg_file.removeprefix(f"{part}/")
        return f"there is no {group}={choice}{_hint(choice, _choices(group, configs))}"
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        parent = str(cause.full_key).rpartition(".")[0]
        known = [f"{parent}.{key!s}".lstrip(".") for key in cause.parent_node if key != "_target_"]
        parts = [part for part in _parts("method", configs) if part.endswith(f"/{cause.full_key}")]
        hint = f"; did you mean {' or '.join(parts)}?" if parts else _hint(str(cause.full_key), known)
        return f"there is no setting {cause.full_key}{hint}"
    if unmatched := UNMATCHED.match(str(error)):
        return _without_place(unmatched[1], configs)
    return str(error)


def _without_place(part: str, configs: Sequence[Path]) -> str:
    """A part was chosen of something that has none of that name: who has one, and where else it may stand."""
    owner, _, name = part.rpartition("/")
    line = re.compile(rf"^  - {name}: ", re.MULTILINE)
    files = [path for folder in configs for path in sorted((folder / owner).glob("*.yaml"))]
    having = [path.stem for path in files if line.search(path.read_text("utf-8"))]
    deeper = [f"{other}=..." for other in _parts(owner, configs) if other.endswith(f"/{name}") and other != part]
    return f"the chosen {owner} has no part {name}; {part}=... goes with {', '.join(having) or 'none'}" + (
        f", and where that is a part of a part it is {' or '.join(deeper)}" if deeper else ""
    )


def refuse_parts(cfg: DictConfig, choices: Mapping[str, Any], *configs: Path) -> None:
    """Raise `ConfigError` where a part stands in the place of a method, or a name in the place of a part."""
    for part in _parts("method", configs):
        group, name = part.rsplit("/", 1)
        chosen = str(choices.get("method"))
        if f"method/{chosen}".rpartition("/")[0] == part:
            raise ConfigError(
                f"method={chosen}: that is a part of methods and not one of them; choose a method, and its part by "
                f"{part}={chosen.rpartition('/')[2]}"
            )
        if group == "method" and isinstance(value := (cfg.get("method") or {}).get(name), str):
            raise ConfigError(f"method.{name}={value}: a part is chosen with a slash, {part}={value}")


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


def swept_with_methods(arguments: Sequence[str]) -> list[str]:
    """The same arguments, those of the method as a choice of one where methods are swept.

    Hydra composes the config of a multirun without what is swept: with the default method, which lacks settings that
    the swept ones have.
    """
    parser = OverridesParser.create()
    try:
        overrides = {
            word: parser.parse_override(word) for word in arguments if "=" in word and not word.startswith("-")
        }
    except HydraException:  # which Hydra is going to tell of
        return list(arguments)
    if not any(override.key_or_group == "method" and override.is_sweep_override() for override in overrides.values()):
        return list(arguments)
    own = {
        word: f"{word.partition('=')[0]}=choice({word.partition('=')[2]})"
        for word, override in overrides.items()
        if override.key_or_group.startswith(("method.", "method/")) and not override.is_sweep_override()
    }
    return [own.get(word, word) for word in arguments]


def usage(name: str, ours: Path, *others: Path) -> str:
    """The file of a verb's settings with its comments, and what its groups offer."""
    text, configs = (ours / f"{name}.yaml").read_text(encoding="utf-8").rstrip(), (ours, *others)
    groups = [group for group in GROUP.findall(text) if (ours / group).is_dir()]
    groups = [name for group in groups for name in (group, *_parts(group, configs))]
    offers = "\n".join(f"  {group}={'|'.join(_choices(group, configs))}" for group in groups)
    chosen = f"\n\nGroups, whose own settings are overridden as in optim.optimiser.lr=1e-3:\n{offers}" if offers else ""
    return (
        f"usage: maskbench {name} [SETTING=VALUE ...]   (or python -m maskbench.{name})\n\n{text}{chosen}\n\n"
        "--cfg job shows the composed config, --hydra-help what else Hydra can do."
    )


def _choices(group: str, configs: Sequence[Path]) -> list[str]:
    """What can be chosen in a group or for a part; `small/solov2` where a folder holds variants of its own members."""
    return [
        path.relative_to(folder / group).with_suffix("").as_posix()
        for folder in configs
        for path in sorted((folder / group).rglob("*.yaml"))
        if path.parent == folder / group or _is_variant(path)
    ]


def _parts(group: str, configs: Sequence[Path]) -> list[str]:
    """The parts that members of a group are made of, which have groups inside of it, and those of parts."""
    parts = {
        path.parent.relative_to(folder).as_posix()
        for folder in configs
        for path in (folder / group).glob("*/**/*.yaml")
        if not _is_variant(path)
    }
    return sorted(parts)


def _is_variant(path: Path) -> bool:
    """Whether a config stands for one of the folder above, as those do that say which package they are of."""
    with path.open(encoding="utf-8") as file:
        return file.readline().startswith("# @package")
