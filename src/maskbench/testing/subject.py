"""Whom the tests of a contract are about: each method of a package, fresh or trained a little, and what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from maskbench.methods.base import Segmenter
from maskbench.structures import Batch, Instances
from maskbench.testing import discs
from maskbench.testing.configs import Configs, configs_of

Move = Callable[..., Segmenter]
"""Gives a trained method with another operating point, whose settings it takes by name."""


class Subject:
    """The methods that a class of tests is about; a test takes one of them by the name of what it wants of it.

    `paper`, `variant` and `name` are names of configs: of a method, of a variant of one, of either. `fresh`, `trained`
    and `at_point` are methods, each in its small variant where it has one. `batch`, `truth` and `without_objects` are
    what they are shown (`maskbench.testing.discs`).
    """

    configs: ClassVar[str | Path]
    """Where the package has its configs, as `hydra.searchpath` has it: `pkg://paper.conf`, or a folder."""
    words: ClassVar[Sequence[str]] = ("backbone=tiny", "optim=adamw")
    """Of a command line, by which methods are built."""
    steps: ClassVar[int] = 50
    """Of training on the two photos, so that predictions are of something."""

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """A test for each config; those of one method one after the other, since it is trained once."""
        known = cls.known()
        names = {"paper": known.papers, "variant": [*known.variants], "small": known.smallest}
        names["name"] = [*names["paper"], *names["variant"]]
        for argument in names.keys() & set(metafunc.fixturenames):
            metafunc.parametrize(argument, names[argument], scope="class")

    @classmethod
    def known(cls) -> Configs:
        """The package's configs."""
        return configs_of(cls.configs, tuple(cls.words))

    @pytest.fixture(autouse=True)
    def seeded(self) -> None:
        """Every test draws the same numbers, whatever ran before it."""
        torch.manual_seed(0)

    @pytest.fixture
    def fresh(self, small: str) -> Segmenter:
        """A method as it starts, which a test may train."""
        return deepcopy(built(self.known(), small))

    @pytest.fixture
    def trained(self, small: str) -> Segmenter:
        """A method that has seen the two photos some times, in evaluation mode."""
        return learnt(self.known(), small, self.steps).eval()

    @pytest.fixture
    def at_point(self, trained: Segmenter, monkeypatch: pytest.MonkeyPatch) -> Move:
        """Moves the operating point of a trained method for one test."""
        before = trained.point

        def move(**changes: Any) -> Segmenter:
            monkeypatch.setattr(trained, "point", replace(before, **changes))
            return trained

        return move

    @pytest.fixture
    def batch(self) -> Batch:
        """Two photos with objects; the second is padded."""
        return discs.batch()

    @pytest.fixture
    def truth(self) -> list[Instances]:
        """The objects of `batch` in photo pixels."""
        return discs.truth()

    @pytest.fixture
    def without_objects(self) -> Batch:
        """The same photos as if nothing were on them."""
        return discs.without_objects()


@lru_cache(maxsize=1)
def built(configs: Configs, name: str) -> Segmenter:
    """A method as it starts; the last one is kept."""
    return configs.build(name)


@lru_cache(maxsize=1)
def learnt(configs: Configs, name: str, steps: int) -> Segmenter:
    """A method that has seen the two photos so many times; the last one is kept."""
    method, batch = configs.build(name).train(), discs.batch()
    scheduled = method.optim(method, steps)
    optimiser, curve = scheduled["optimizer"], scheduled["lr_scheduler"]["scheduler"]
    assert isinstance(curve, LRScheduler)
    for _ in range(steps):
        optimiser.zero_grad()
        total(method.loss(batch)).backward()
        optimiser.step()
        curve.step()
    return method


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """The objective."""
    return torch.stack(list(losses.values())).sum()


def seeded_losses(method: Segmenter, batch: Batch) -> dict[str, float]:
    """What the method makes of a batch, whose draws are the same each time."""
    torch.manual_seed(1)
    with torch.no_grad():
        return {name: value.item() for name, value in method.loss(batch).items()}


def predict(method: Segmenter, batch: Batch) -> list[Instances]:
    with torch.inference_mode():
        return method.predict(batch)


def overlaps(a: Instances, b: Instances) -> Tensor:
    """IoU of every mask with every other; two masks without a pixel are the same."""
    rows, columns = (instances.masks.dense().flatten(1).float() for instances in (a, b))
    shared = rows @ columns.T
    union = rows.sum(1)[:, None] + columns.sum(1)[None] - shared
    return torch.where(union > 0, shared / union, 1.0)
