"""Plugins of ours for Hydra: the launcher of a sweep, the sweeper of a search."""

from __future__ import annotations

import sys
from types import ModuleType

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

HOME = "hydra_plugins.maskbench"


def plug_in(plugin: type[Plugin]) -> None:
    """Make a plugin known as `hydra_plugins.maskbench.NAME`; before `hydra.main`.

    Hydra starts plugins of the namespace `hydra_plugins` alone. A module installed there would be imported by every
    Hydra application of this environment; ours is put there in this process.
    """
    known = Plugins.instance()  # which finds installed plugins first
    plugin.__module__ = HOME
    plugins = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    own = sys.modules.setdefault(HOME, ModuleType(HOME))
    vars(own)[plugin.__name__] = plugin
    vars(plugins)["maskbench"] = own
    known.register(plugin)
