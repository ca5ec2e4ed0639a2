"""What the specification of a dashboard names, wherever it stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Shown:
    """Names as W&B has them.

    Args:
        together: metrics that one line, or one panel of media, needs from the same row of history.
        over_runs: metrics of the summary and settings, also those that runs are sorted by, listed with or grouped by.
        tables: of the summary.
    """

    together: set[tuple[str, ...]] = field(default_factory=set)
    over_runs: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)


def shown(dashboard: Any) -> Shown:
    """By all panels and sets of runs."""
    found = Shown()
    for node in nodes(dashboard):
        config = node.get("config", {})
        match node.get("viewType"):
            case "Run History Line Plot":
                found.together |= {(config["xAxis"], name) for name in config["metrics"]}
            case "Media Browser":
                found.together |= {(name,) for name in config["mediaKeys"]}
            case "Scatter Plot":
                found.over_runs |= {config["xAxis"], config["yAxis"]}
            case "Bar Chart":
                found.over_runs |= {f"summary:{name}" for name in config["metrics"]}
            case "Parallel Coordinates Plot":
                found.over_runs |= {column["accessor"] for column in config["columns"]}
            case "Vega2":
                found.tables |= {one["value"] for one in nodes(config) if one.get("name") == "tableKey"}
            case "Weave":
                found.tables |= {one["val"] for one in nodes(config) if "val" in one}
        found.over_runs |= {name for name in node.get("columnPinned", ()) if name != "run:displayName"}
        keys = [*node.get("grouping", ()), *(sort["key"] for sort in node.get("sort", {}).get("keys", ()))]
        found.over_runs |= {f"{key['section']}:{key['name']}" for key in keys if key["section"] != "run"}
    return found


def nodes(inside: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON text."""
    if isinstance(inside, dict):
        yield inside
    for inner in inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list) else ():
        yield from nodes(inner)
