"""What Hydra can't make of a command line, said by the setting, and what there is to set."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from maskbench.errors import ConfigError

GROUP = re.compile(r"^  - (?:override )?/?(\w+): ", re.MULTILINE)
MEMBERLESS = "Config group override must be a string or a list"
"""What Hydra says, as a mere ValueError, of a group that is given null or a number."""
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
        return f"there is no {group}={choice}{hint(choice, _choices(group, configs))}"
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and isinstance(cause.parent_node, DictConfig):
        return f"there is no setting {cause.full_key}{_near(str(cause.full_key), cause.parent_node, configs)}"
    if unmatched := UNMATCHED.match(str(error)):
        return _without_place(unmatched[1], configs)
    return str(error)


def _near(key: str, parent: DictConfig, configs: Sequence[Path]) -> str:
    """What may be meant by a setting that is not there: a part, one that lies deeper, one of another choice, or a name
    that is near."""
    if parts := [part for part in _parts("method", configs) if part.endswith(f"/{key}")]:
        return _meant(parts)
    above, _, name = key.rpartition(".")
    every = list(_paths(cast(DictConfig, parent._get_root())))
    below = [path for path in every if path.startswith(f"{above}.")]
    if deeper := [path for path in below or every if path.rpartition(".")[2] == name and key.count(".") < 2]:
        return _meant(deeper[:3])
    siblings = [own for own in map(str, parent) if not own.startswith("_") and own != "hydra"]
    if others := _choices_with(configs, above, name):
        return (
            f"; the chosen {above} has none of that name, but {', '.join(others)} ha{'s' if len(others) == 1 else 've'}"
        )
    prefix = f"{above}." if above else ""
    if not difflib.get_close_matches(name, siblings, n=1) and (
        deeper := [path for path in every if difflib.get_close_matches(name, [path.rpartition(".")[2]], cutoff=0.8)]
    ):
        return _meant(deeper[:3])
    return hint(name, siblings, prefix) if siblings else f"; {above} holds no settings"


def _meant(names: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(names)}?"


def _paths(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The settings below, by dotted path, those that lie higher first; Hydra's own are left out."""
    names = [name for name in map(str, node) if not name.startswith("_") and f"{prefix}{name}" != "hydra"]
    yield from (f"{prefix}{name}" for name in names)
    for name in names:
        if isinstance(below := node._get_node(name), DictConfig) and not below._is_none() and not below._is_missing():
            yield from _paths(below, f"{prefix}{name}.")


def _choices_with(configs: Sequence[Path], group: str, name: str) -> list[str]:
    """The members of a group that have a setting of this name."""
    if not group or "." in group:
        return []
    line = re.compile(rf"^{re.escape(name)}:", re.MULTILINE)
    files = {choice: [folder / group / f"{choice}.yaml" for folder in configs] for choice in _choices(group, configs)}
    return [
        choice
        for choice, paths in files.items()
        if any(line.search(path.read_text("utf-8")) for path in paths if path.is_file())
    ]


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


def hint(given: str, known: Sequence[str], prefix: str = "") -> str:
    """What may be meant by a name that is not known, or all that there are; to follow what is not there."""
    near = difflib.get_close_matches(given, known, n=2)
    named = [f"{prefix}{name}" for name in near or known]
    return _meant(named) if near else f"; there are {', '.join(named)}"


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
        word: f"{word.partition('=')[0]}={_choice_of_one(word.partition('=')[2])}"
        for word, override in overrides.items()
        if override.key_or_group.startswith(("method.", "method/")) and not override.is_sweep_override()
    }
    return [own.get(word, word) for word in arguments]


def _choice_of_one(value: str) -> str:
    """Hydra's words for it; its choice(…) takes no null and no empty value, which are listed twice and count once."""
    if value.strip().lower() in ("", "null"):
        return ",".join(2 * [value.strip() or "''"])
    return f"choice({value})"


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
