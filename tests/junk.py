"""Annotation files with one value replaced by something else, or gone."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

JUNK = (None, True, -1, 0, 3, 1e9, float("nan"), "", "a", [], [1], [[]], [[0, 0, 1]], {}, {"size": [20, 30]})
"""What may stand where something else belongs."""


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a nested value, with every key in it."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from places(node[key])


def spoilt(content: Any, draw: random.Random) -> Any:
    """A copy of a content with a fault at a random place."""
    broken = copy.deepcopy(content)
    node, key = draw.choice(list(places(broken)))
    if draw.random() < 0.2:
        del node[key]
    else:
        node[key] = draw.choice(JUNK)
    return broken
