# No `from __future__ import annotations` here: Hydra reads the types of a plugin's dataclasses.
"""The Hydra sweeper `grid`: every combination of the values that a command line lists."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from maskbench.atomic import replace_text
from maskbench.errors import ConfigError
from maskbench.runtime.plugins import plug_in
from maskbench.runtime.verb import report_errors


class GridSweeper(Sweeper):
    """Hands all combinations to the launcher at once, the first setting slowest.

    Hydra's own sweeper does the same, but composes each before, to see whether it can be. Our launchers compose all
    before they start one; a second time is half a minute for two hundred trials.

    Args:
        params: values to sweep over, by setting, before those of the command line.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        words = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        with report_errors():
            values = {override.get_key_element(): _values(override) for override in parser.parse_overrides(words)}
            replace_text(Path(self.config.hydra.sweep.dir) / "multirun.yaml", OmegaConf.to_yaml(self.config))
        return self.launcher.launch([list(job) for job in product(*values.values())], initial_job_idx=0)


def _values(override: Override) -> Sequence[str]:
    """What a word of the command line stands for, one word a value."""
    name = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{name}={override.get_value_element_as_str()}"]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: that is a range; list the values of it that are to be tried, or search it with "
            "hydra/sweeper=optuna"
        )
    # each once: a null is listed twice where it is a choice of one (`command_line.swept_with_methods`)
    return list(dict.fromkeys(f"{name}={value}" for value in override.sweep_string_iterator()))


def register() -> None:
    """Make `hydra/sweeper=grid` known; before `hydra.main`."""
    plug_in(GridSweeper)
