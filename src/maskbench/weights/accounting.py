"""Every weight is accounted for: what has no place in a network, what it misses, and what differs in shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

CLASS_HEADS = re.compile(
    r"((?:box_head|cascade\.heads\.\d+)\.(?:classify|regress)"
    r"|mask_heads?(?:\.\d+)?\.logits|coarse_head\.logits|refinement\.(?:layers\.\d+|logits)"
    r"|semantic\.classify|classify)\."
)
"""Layers whose shape depends on the number of classes."""

SHOWN = 12
"""Names of one kind that a message lists."""


@dataclass(frozen=True)
class Account:
    """How weights differ from what a network expects.

    Args:
        unmatched: of the file's, those that the network has no place for.
        missing: of the network's, those that the file lacks.
        misshaped: name → found and expected shape.
    """

    unmatched: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Account:
        """Counters, which change no result, may be missing."""
        return cls(
            unmatched=tuple(name for name in found if name not in expected),
            missing=tuple(name for name in expected if name not in found and not name.endswith(".num_batches_tracked")),
            misshaped={
                name: (tuple(value.shape), tuple(expected[name].shape))
                for name, value in found.items()
                if name in expected and value.shape != expected[name].shape
            },
        )

    def __bool__(self) -> bool:
        return bool(self.unmatched or self.missing or self.misshaped)

    def __str__(self) -> str:
        shapes = [f"{name}: {found}, expected {wanted}" for name, (found, wanted) in self.misshaped.items()]
        parts = (
            ("have no place", self.unmatched),
            ("are missing", self.missing),
            ("have another shape", shapes),
        )
        return "".join(f"\n{len(names)} {what}:{_listed(names)}" for what, names in parts if names)


def class_heads(account: Account) -> set[str]:
    """The layers that depend on the number of classes and differ in shape or are missing, with weight and bias."""
    return {found[1] for name in (*account.misshaped, *account.missing) if (found := CLASS_HEADS.match(name))}


def without(weights: Mapping[str, Tensor], layers: set[str]) -> dict[str, Tensor]:
    """The weights but those of some layers."""
    return {name: value for name, value in weights.items() if name.rpartition(".")[0] not in layers}


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f"\n  … and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "".join(f"\n  {name}" for name in names[:SHOWN]) + more
