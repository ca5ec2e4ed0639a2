# No `from __future__ import annotations` here: Hydra reads the types of a plugin's dataclasses.
"""The Hydra sweeper `optuna`: a multirun over settings that are left open becomes a search for the best.

    python -m maskbench.train -m hydra/sweeper=optuna method=small/solov2 'method.sigma=interval(0.1,0.4)'

It asks for trials, the launcher runs them, and their AP on the tune split says which to ask for next. `protocol=tuned`
tries three learning rates inside of every trial, the same for all methods; this searches one method's own settings.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from maskbench.errors import ConfigError, RunError
from maskbench.runtime.launcher import TrialLauncher, conclude
from maskbench.runtime.objective import require_last_validation, require_tune
from maskbench.runtime.plugins import plug_in
from maskbench.runtime.trial import alone
from maskbench.runtime.verb import report_errors
from maskbench.sweep.trial import Outcome, Trial


class OptunaSweeper(Sweeper):
    """Searches over the settings that a command line leaves open (see `search_space`), from wherever it stands.

    Args:
        trials: to be told in all, those of earlier starts included.
        batch: trials of a round, between two looks at what was found; None: as many as the launcher runs at once.
        seed: of the suggestions; it is not that of the trials.

    Raises:
        ConfigError: one of them is below what makes sense.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: TrialLauncher

    def __init__(self, trials: int = 20, batch: int | None = None, seed: int = 0) -> None:
        for name, value, least in (("trials", trials, 1), ("batch", batch, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                raise ConfigError(f"hydra.sweeper.{name} is at least {least}, found {value}")
        self.trials, self.batch, self.seed = trials, batch, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        with report_errors():
            if not isinstance(launcher, TrialLauncher):
                found = type(launcher).__name__
                raise ConfigError(f"hydra/sweeper=optuna goes with hydra/launcher=pool, ray or slurm, found {found}")
        self.launcher = launcher

    def sweep(self, arguments: list[str]) -> list[Outcome]:
        """Search, show what was found and print a line of JSON; exits with 3 when some of the trials failed."""
        with report_errors():
            outcomes = self._search(arguments)
        conclude(outcomes)
        return outcomes

    def _search(self, arguments: Sequence[str]) -> list[Outcome]:
        _require_optuna()
        # only here: whoever does not search does without it
        from maskbench.runtime.search import Search
        from maskbench.runtime.search_space import Space

        space = Space.read(arguments, self.hydra_context.config_loader)
        cfgs = [self.launcher.job(space.overrides(params))[0] for params in space.corners()]
        require_tune(cfgs[0].data)
        for cfg in cfgs:
            require_last_validation(cfg)
        runs, study = Path(self.config.runs), self.config.study
        batch = self.batch or self.launcher.engine([cfg.trainer for cfg in cfgs], runs / study).slots
        if batch is None:
            raise ConfigError("hydra.sweeper.batch: this launcher does not know how many trials run at once; set it")
        taken = RunError(f"{runs / study}: another process searches there; wait for it or stop it")
        with alone(runs / study, lambda: taken):
            search = Search(
                space,
                runs,
                study,
                self._find,
                self.launcher.run,
                trials=self.trials,
                batch=batch,
                seed=self.seed,
                train=("python", "-m", "maskbench.train", *self.launcher.searchpath()),
            )
            outcomes = search.rounds()
            search.show()
        return outcomes

    def _find(self, overrides: Sequence[str]) -> Trial:
        return self.launcher.job(overrides)[1]


def _require_optuna() -> None:
    if find_spec("optuna") is None:
        raise ConfigError("hydra/sweeper=optuna needs optuna: pip install 'maskbench[optuna]'")


def register() -> None:
    """Make `hydra/sweeper=optuna` known; before `hydra.main`."""
    plug_in(OptunaSweeper)
