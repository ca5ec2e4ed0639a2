"""The precisions that a method can be trained and predict in, by Lightning's names; without torch."""

from __future__ import annotations

from maskbench.errors import ConfigError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


def precision_name(precision: str | int) -> str:
    """The precision under its one name: 32 is `32-true`.

    Raises:
        ConfigError: methods can't predict in it.
    """
    name = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(str(precision), str(precision))
    if name not in PRECISIONS:
        raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}, found {precision!r}")
    return name
