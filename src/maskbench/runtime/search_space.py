"""What a search is over: the settings that a command line leaves open, in the words that Hydra has for sweeps.

a,b,c  choice(a,b,c)  glob(*)   one of them
range(a,b[,step])               a number in steps, b not among them
interval(a,b)                   any number from a to b; int(interval(a,b)): any whole one
tag(log, interval(a,b))         evenly in its logarithm
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from maskbench.errors import ConfigError
from maskbench.sweep.identity import WITHOUT_EFFECT

OPEN = "data.batch"
"""What of the data may be searched."""

CLOSED = {
    "study": "a search is one folder",
    "runs": "a search is one folder",
    "experiment": "a recipe says what is compared",
    "seed": "luck is no setting; train what was found with several seeds",
    "data": f"trials are compared on one tune split (of the data {OPEN} alone is searched)",
    "evaluation": "trials are compared by one evaluator",
}
"""Settings that a search can't be over, each with its reason, beside those that change no result."""

DIGITS = 12
"""Significant ones of a number: a step of 0.1 is taken to 0.3 and not to 0.30000000000000004."""


@dataclass(frozen=True)
class Space:
    """The settings of a search.

    Attributes:
        searched: what is tried of each setting that is open, by the part of its override before `=`.
        fixed: the other overrides, as they were given.
        words: all of them, as they were given.
    """

    searched: Mapping[str, BaseDistribution]
    fixed: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def read(cls, words: Sequence[str], configs: ConfigLoader | None = None) -> Space:
        """The space that overrides span; one that is given twice counts as it is given last.

        Args:
            words: the overrides.
            configs: where `glob` finds the members of a group.

        Raises:
            ConfigError: nothing is left open, or something that can't be searched.
        """
        parser = OverridesParser.create(configs)
        overrides = {found.get_key_element(): found for found in map(parser.parse_override, words)}
        searched: dict[str, BaseDistribution] = {}
        fixed: list[str] = []
        for key, override in overrides.items():
            if not override.is_sweep_override():
                fixed.append(str(override.input_line))
                continue
            distribution = _distribution(override)
            if distribution.single():  # as where a setting of the method stands beside several methods
                fixed.append(f"{key}={_written(_ends(distribution)[0])}")
                continue
            _require_open(override)
            searched[key] = distribution
        if not searched:
            raise ConfigError(
                f"hydra/sweeper=optuna finds nothing to search in: {' '.join(words) or 'no settings'}. Leave something "
                "open, as in 'method.sigma=interval(0.1,0.4)' or 'optim.optimiser.lr=tag(log, interval(1e-4,1e-2))'"
            )
        return cls(searched, tuple(fixed), tuple(str(override.input_line) for override in overrides.values()))

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *(f"{key}={value}" for key, value in self.written(params).items())]

    def written(self, params: Mapping[str, Any]) -> dict[str, str]:
        """The searched settings of a trial as an override has them, in the order of the command line."""
        return {key: _written(params[key]) for key in self.searched}

    def corners(self) -> Iterator[dict[str, Any]]:
        """Settings with which every choice and both ends of every number occur, one away from the first of them."""
        first = {key: _ends(distribution)[0] for key, distribution in self.searched.items()}
        yield first
        for key, distribution in self.searched.items():
            yield from ({**first, key: value} for value in _ends(distribution)[1:])

    def described(self) -> dict[str, str]:
        """The distributions as JSON: equal where the same is searched, however it was written."""
        return {key: distribution_to_json(distribution) for key, distribution in sorted(self.searched.items())}


def _require_open(override: Override) -> None:
    """Raise `ConfigError` for a setting that trials of one search may not differ in."""
    key = override.key_or_group
    reasons = [why for closed, why in CLOSED.items() if _inside(key, closed)]
    reasons += ["it changes no result" for closed in WITHOUT_EFFECT if _inside(key, closed)]
    if reasons and key != OPEN:
        raise ConfigError(f"{override.input_line}: {key} can't be searched, as {reasons[0]}; give it one value")


def _inside(key: str, group: str) -> bool:
    return key == group or key.startswith((f"{group}.", f"{group}/"))


def _distribution(override: Override) -> BaseDistribution:
    sweep = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if unknown := tags - {"log"}:
        raise ConfigError(f"{override.input_line}: a search knows the tag log, found {', '.join(sorted(unknown))}")
    if isinstance(sweep, IntervalSweep):
        return _between(override, sweep, log=bool(tags))
    if isinstance(sweep, RangeSweep):
        return _in_steps(override, sweep, log=bool(tags))
    if tags:
        raise ConfigError(f"{override.input_line}: a choice has no logarithm; say tag(log, interval(LOW,HIGH))")
    # sorted, or a shuffled choice would be another one each time
    choices = sorted(set(override.sweep_string_iterator()))
    if not choices:
        raise ConfigError(f"{override.input_line}: there is nothing to choose from; name some, or widen the pattern")
    return CategoricalDistribution(choices)


def _between(override: Override, sweep: IntervalSweep, *, log: bool) -> BaseDistribution:
    low, high = sweep.start, sweep.end
    if low is None or high is None or not low <= high:
        raise ConfigError(f"{override.input_line}: an interval runs from low to high, found {low} to {high}")
    _require_logarithm(override, low, log=log)
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _in_steps(override: Override, sweep: RangeSweep, *, log: bool) -> BaseDistribution:
    start, stop, step = (Decimal(str(value)) for value in (sweep.start, sweep.stop, sweep.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ConfigError(f"{override.input_line}: there is no number from {start} to {stop} in steps of {step}")
    low, high = sorted((start, start + (count - 1) * step))
    _require_logarithm(override, low, log=log)
    whole = all(isinstance(value, int) for value in (sweep.start, sweep.stop, sweep.step))
    if log and (not whole or abs(step) != 1):
        raise ConfigError(
            f"{override.input_line}: steps of {step} don't go with tag(log, …); say tag(log, interval({low},{high}))"
        )
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(abs(step)))
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def _require_logarithm(override: Override, low: float | Decimal, *, log: bool) -> None:
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: tag(log, …) is for numbers above 0, found {low}")


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """All choices, or the lowest and the highest number."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high


def _written(value: str | int | float) -> str:
    """A value as an override has it; choices are written so already."""
    return str(float(f"{value:.{DIGITS}g}")) if isinstance(value, float) else str(value)
