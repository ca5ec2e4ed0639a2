"""What the config of a method promises."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

from omegaconf import OmegaConf

from maskbench.methods.base import Paradigm
from maskbench.testing.configs import Configs
from maskbench.testing.discs import CLASSES
from maskbench.testing.subject import Subject

REFERENCE = "mask_rcnn"
"""The method of ours whose footing every other's is held against."""


class Configuration(Subject):
    """A config is the method's alone, it says what the paper says, and something can be built of it."""

    def test_the_papers_settings_are_the_constructors_defaults(self, paper: str) -> None:
        stated: Any = OmegaConf.to_container(self.known().compose(paper, *self.words).method)
        target = stated.pop("_target_")
        kind = resolve_name(target)
        assert isinstance(kind, type), f"{paper}.yaml: expected a class as _target_, found {target}"
        defaults = _defaults(kind)
        unknown = sorted(set(stated) - set(defaults))
        assert not unknown, f"{paper}.yaml sets {unknown}, which the constructor of {target} does not name"
        for key, value in stated.items():
            if not isinstance(value, dict):  # a nested part is made, not compared
                default = _plain(defaults[key])
                assert default == value, f"{paper}.yaml: {key} is {value}, but {default} in the constructor of {target}"

    def test_a_variant_states_what_differs_from_the_paper_and_nothing_else(self, variant: str) -> None:
        known = self.known()
        origin = known.variants[variant]
        stated, paper = known.stated(variant), known.stated(origin)
        first, *parts, own = stated.pop("defaults")
        assert (first, own) == (f"/method/{origin}@_here_", "_self_"), (
            f"{variant}.yaml: expected the defaults /method/{origin}@_here_ first and _self_ last, found {first}, {own}"
        )
        wrong = [key for part in parts for key in part if not re.fullmatch(r"override /method/(\w+)@\1", key)]
        assert not wrong, f"{variant}.yaml: a part is chosen by override /method/PART@PART, found {wrong}"
        named = Path(variant).name == origin if "/" in variant else variant.startswith(f"{origin}_")
        assert named, f"{variant}.yaml starts from {origin}: expected the name {origin}_… or FOLDER/{origin}"
        repeated = [key for key, value in stated.items() if key in paper and paper[key] == value]
        assert not repeated, f"{variant}.yaml repeats {repeated} of {origin}.yaml"

    def test_none_of_its_configs_has_the_name_of_one_of_ours(self) -> None:
        hidden = self.known().hidden
        assert not hidden, f"maskbench has {', '.join(hidden)} too, and Hydra takes those: rename your own"

    def test_a_method_can_be_built(self, name: str) -> None:
        method = self.known().build(name)
        assert method.classes == CLASSES
        assert method.paradigm in get_args(Paradigm), (
            f"{name}: paradigm is {method.paradigm!r}, expected one of {', '.join(get_args(Paradigm))}"
        )
        assert method.default_point.max_instances >= 1

    def test_equal_footing_what_differs_between_methods_is_the_method(self, name: str) -> None:
        reference, other = (_footing(self.known(), word) for word in (REFERENCE, name))
        differing = sorted(key for key in {*reference, *other} if reference.get(key) != other.get(key))
        outside = [key for key in differing if key.split(".")[0] != "method"]
        assert not outside, f"method={name} sets more than its own: {outside} are other than with method={REFERENCE}"
        assert "data.batch" in reference


@lru_cache(maxsize=8)  # the reference is asked for with every other
def _footing(known: Configs, name: str) -> dict[str, Any]:
    """Every setting of a training of this method, by its dotted name."""
    return _leaves(OmegaConf.to_container(known.compose(name)))


def _defaults(target: type) -> dict[str, Any]:
    """Of the constructor's arguments, and of those that it hands on to the method which it is a variation of."""
    defaults: dict[str, Any] = {}
    for own in inspect.getmro(target):
        if inspect.isabstract(own):
            break
        parameters = inspect.signature(own).parameters.values()
        defaults = {parameter.name: parameter.default for parameter in parameters} | defaults
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
            break
    return defaults


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _leaves(node: Any, path: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping):
        return {key: value for name in node for key, value in _leaves(node[name], f"{path}{name}.").items()}
    return {path.removesuffix("."): node}
