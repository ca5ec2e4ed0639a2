"""Whether the value of a setting is what a type hint says, and the hint in words."""

from __future__ import annotations

import collections.abc
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}
SEQUENCES = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value of a config may stand where the hint is; where a hint tells nothing, everything may.

    An int is a float, a list a tuple, and a text a path. What a `_target_` makes is not known here, and may stand
    everywhere.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in args)
    if origin is Literal:
        return value in args
    if origin is tuple and isinstance(value, list):
        if len(args) == 2 and args[1] is Ellipsis:
            return all(fits(each, args[0]) for each in value)
        return len(value) == len(args) and all(map(fits, value, args))
    if origin in SEQUENCES:
        return isinstance(value, list) and all(fits(each, args[0]) for each in value)
    return _is_one(value, origin or hint)


def _is_one(value: Any, kind: Any) -> bool:
    if kind is None or kind is type(None):
        return value is None
    if kind in (int, float):
        return not isinstance(value, bool) and isinstance(value, int | float if kind is float else int)
    if kind in (tuple, *SEQUENCES):
        return isinstance(value, list)
    if kind is collections.abc.Callable:
        return False
    if kind is Any or not isinstance(kind, type) or issubclass(kind, Enum) or typing.is_typeddict(kind):
        return True
    if issubclass(kind, PathLike) or kind is PathLike:
        return isinstance(value, str)
    try:
        return isinstance(value, kind)
    except TypeError:  # a protocol that can't be asked
        return True


def in_words(hint: Any) -> str:
    """What the hint asks for."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(in_words, args)))
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)}"
    if origin in (tuple, *SEQUENCES) and args:
        return f"a list, each {in_words(args[0])}"
    if hint is Path or hint is PathLike or origin is PathLike:
        return "a path"
    return WORDS.get(hint) or str(getattr(origin or hint, "__name__", hint))


def require(cfg: DictConfig, hints: Mapping[str, Any]) -> None:
    """Look at some settings, by their dotted paths.

    Raises:
        ConfigError: one was taken out, or is no such value.
        MissingMandatoryValue: one is to be set, and is not.
    """
    for name, hint in hints.items():
        value = OmegaConf.select(cfg, name, default=..., throw_on_missing=True)
        if value is ...:
            raise ConfigError(f"{name} is missing: leave ~{name} out")
        plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        if not fits(plain, hint):
            raise ConfigError(misfit(name, plain, hint))


def require_one(cfg: DictConfig, ways: Mapping[str, str], purpose: str) -> str:
    """The one of some settings that is given.

    Args:
        cfg: the config.
        ways: how each is given, in words, by its name.
        purpose: what it is needed for, as in "something to ...".

    Raises:
        ConfigError: none is given, or several are.
    """
    given = [name for name in ways if cfg[name]]
    if len(given) != 1:
        found = " and ".join(f"{name}=..." for name in given) or "nothing"
        *others, last = ways.values()
        raise ConfigError(f"found {found} to {purpose}: expected one of {', '.join(others)} and {last}")
    return given[0]


def misfit(name: str, value: Any, hint: Any) -> str:
    """That a setting is not what its hint says."""
    if isinstance(value, str):
        listed = f", as in '{name}=[{value}]'" if fits([value], hint) else ""
        return f"{name}={value}: expected {in_words(hint)}{listed}"
    given = json.dumps(value, ensure_ascii=False, default=str)  # which is also how a command line has it
    needs_quotes = _is_text(hint) and not isinstance(value, list | Mapping)
    quoted = f" (in quotes of its own: '{name}=\"{given}\"')" if needs_quotes else ""
    return f"{name}={given}: expected {in_words(hint)}{quoted}"


def _is_text(hint: Any) -> bool:
    """Whether a text may stand there, not inside of a list."""
    return hint is str or (get_origin(hint) in (Union, types.UnionType) and any(map(_is_text, get_args(hint))))
