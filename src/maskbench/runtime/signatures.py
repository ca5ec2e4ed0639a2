"""Whether the settings of a config are those that what they call takes, without calling it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Union

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from maskbench.errors import ConfigError
from maskbench.runtime.command_line import hint
from maskbench.runtime.values import fits, misfit
from maskbench.targets import targets

UNKNOWN: Any = Any
"""A hint that tells nothing."""


class Taken(NamedTuple):
    """What can be called with: type hints by name, and whether other names are taken as well."""

    hints: dict[str, Any]
    others: bool


def require_signatures(cfg: DictConfig) -> None:
    """Look at every node of a config that names what to call.

    Raises:
        ConfigError: there is no such thing, it does not take a setting of that name, or not such a value.
    """
    settings = OmegaConf.to_container(cfg, resolve=True)
    for path, node in targets(settings):
        called = _found(path, str(node["_target_"]))
        taken = _taken(called)
        for name, value in node.items():
            if name.startswith("_") or value == "???":
                continue
            setting = f"{path}.{name}"
            if name not in taken.hints:
                if not taken.others:
                    near = hint(name, list(taken.hints))
                    raise ConfigError(f"there is no setting {setting}: {node['_target_']} takes none{near}")
            elif not fits(value, taken.hints[name]):
                raise ConfigError(misfit(setting, value, taken.hints[name]))


def _found(path: str, target: str) -> Callable[..., Any]:
    try:
        return get_object(target)
    except (HydraException, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{path}._target_={target}: can't be found ({reason})") from error


def _taken(called: Callable[..., Any]) -> Taken:
    """By its signature; of a class that hands `**others` on to its bases, by theirs too."""
    hints: dict[str, Any] = {}
    for function in _signed(called):
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # written in C
            return Taken(hints, True)
        parameters = list(signature.parameters.values())
        for each in parameters:
            if each.name != "self" and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
                hints.setdefault(each.name, _annotated(each, function))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return Taken(hints, False)
    return Taken(hints, True)


def _signed(called: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    if not isinstance(called, type) or "__signature__" in vars(called):
        yield called
        return
    for kind in called.__mro__[:-1]:
        if "__init__" in vars(kind):
            yield vars(kind)["__init__"]


def _annotated(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The type of a parameter; `UNKNOWN` where it tells none or one that is imported for type checkers alone."""
    found = parameter.annotation
    if isinstance(found, str):
        names = getattr(inspect.unwrap(function), "__globals__", {})
        try:
            found = eval(found, dict(names))  # as typing.get_type_hints does, of all parameters at once
        except Exception:
            return UNKNOWN
    if found is inspect.Parameter.empty:
        return UNKNOWN
    return Union[found, None] if parameter.default is None else found  # noqa: UP007  (not all that stand there know |)
