"""What the methods of a study have published elsewhere, and whether they stand in the same order there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations

import yaml

from maskbench.study.leaderboard import Group


@dataclass(frozen=True)
class Figure:
    """A published row; the file says what each field is."""

    method: str
    data: str
    backbone: str
    epochs: int
    scales: str
    ap: float
    source: str
    ms: float | None = None
    timed: str | None = None
    hardware: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Order:
    """A row of a study beside its method's published AP, for those that were published under like conditions.

    Args:
        label, ap, rank: of the study, the best first.
        published, published_rank: mask AP × 100 on COCO, and its place among these.
    """

    label: str
    ap: float
    rank: int
    published: float
    published_rank: int


@dataclass(frozen=True)
class Published:
    """What is known of the methods of a section.

    Args:
        figures: all of their rows.
        orders: one for each method that was published with one backbone and schedule; empty where there are not two.
        alike: how many of the pairs that can be told apart here stand in the same order in both.
        pairs: of how many.
    """

    figures: list[Figure]
    orders: list[Order]
    alike: int
    pairs: int


LIKE = ("COCO val2017", "R50-FPN", 12, "one", "MMDetection")
"""Data, backbone, epochs, scales and code base of the rows that are put in an order: the field's usual comparison."""


@cache
def figures() -> tuple[Figure, ...]:
    """All that `published.yaml` lists."""
    content = files("maskbench.study").joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(Figure(**row) for row in yaml.safe_load(content))


def published(found: Group) -> Published:
    """The published figures of the methods of a group, and their order against ours.

    A method stands for its best row (`small/solov2` and `solov2` are both SOLOv2).
    """
    ranked = found.methods[~found.methods["guest"]].dropna(subset=["AP"])
    best: dict[str, tuple[str, float]] = {}
    for label, method, ap in zip(ranked["label"], ranked["method"], ranked["AP"], strict=True):
        best.setdefault(method.split("-")[0], (label, ap))
    known = [figure for figure in figures() if figure.method in best]
    like = {figure.method: figure for figure in known if _is_like(figure)}
    own = [method for method in best if method in like]
    if len(own) < 2:
        return Published(known, [], 0, 0)
    theirs = sorted(own, key=lambda method: -like[method].ap)
    orders = [
        Order(*best[method], place + 1, like[method].ap, theirs.index(method) + 1) for place, method in enumerate(own)
    ]
    return Published(known, orders, *_agreement(orders, found))


def _is_like(figure: Figure) -> bool:
    *conditions, code = LIKE
    return [figure.data, figure.backbone, figure.epochs, figure.scales] == conditions and code in figure.source


def _agreement(orders: Sequence[Order], found: Group) -> tuple[int, int]:
    """Of the pairs that can be told apart here, how many stand in the published order; and how many there are."""
    pairs = [(first, second) for first, second in combinations(orders, 2) if _apart(first, second, found)]
    return sum(first.published > second.published for first, second in pairs), len(pairs)


def _apart(first: Order, second: Order, found: Group) -> bool:
    """True as well where that was not tested."""
    pair = found.uncertainty.between(first.label, second.label) if found.uncertainty else None
    return pair is None or pair.apart
