"""Settings fitted to the data: set in a composed config before its trial is named, and written with their reasons.

Without torch, for processes that only start and watch trials.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from maskbench.data.fitting.rules import Fitted

WIDTH = 120


def said(overrides: Sequence[str]) -> frozenset[str]:
    """The settings that words of a command line give by name; a choice in a group names none."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return frozenset(override.key_or_group for override in parsed if "." in override.key_or_group)


def applied(cfg: DictConfig, found: Sequence[Fitted]) -> DictConfig:
    """The config with fitted settings in it, and with what refers to them."""
    cfg = cfg.copy()
    for each in found:
        OmegaConf.update(cfg, each.setting, each.value, merge=False)
    return cfg


def as_yaml(found: Sequence[Fitted], head: Sequence[str]) -> str:
    """Fitted settings as a recipe that Hydra loads (`experiment=`), each below its reason.

    Args:
        found: the settings.
        head: lines about all of them.
    """
    tree: dict[str, Any] = {}
    for each in found:
        *groups, name = each.setting.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = each
    return "\n".join(["# @package _global_", *_comment(head), *_lines(tree, "")]) + "\n"


def _lines(node: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in node.items():
        if isinstance(value, Fitted):
            lines += _comment([value.reason], indent)
            lines.append(f"{indent}{name}: {json.dumps(value.value)}")
        else:
            lines += [f"{indent}{name}:", *_lines(value, f"{indent}  ")]
    return lines


def _comment(texts: Sequence[str], indent: str = "") -> list[str]:
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    return [line for text in texts for line in wrap.wrap(text)]
